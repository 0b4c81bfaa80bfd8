"""Errors and cosines of sets of tensors."""

import math

import pytest
import torch

from volano.planner.parity.likeness import (
    change,
    compare,
    different,
    distance,
    is_finite,
    names_of_none,
    relative,
)
from volano.planner.parity.probe_batch import Gradient


def test_the_error_is_over_all_and_single_cosines_are_of_large_tensors():
    expected = {"small": torch.tensor([3.0, 4.0]), "large": torch.ones(1000), "none": None}
    found = {"small": torch.tensor([3.0, 4.5]), "large": torch.ones(1000), "none": None}
    likeness = compare(found, expected)
    assert likeness.error == pytest.approx(0.5 / math.sqrt(1025))
    assert likeness.by_parameter == {"large": pytest.approx(1.0)}
    assert likeness.least == pytest.approx(1.0)
    assert 0.999 < likeness.cosine < 1.0
    assert compare(found, {"none": None}).error == 0.0
    assert compare(found, {"small": torch.zeros(2)}).error == math.inf
    assert names_of_none(found) == {"none"}


def test_distances_are_shares_of_the_norm():
    assert distance(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert distance(torch.tensor([0.5]), torch.zeros(1)) == 0.5
    assert relative(1.1, 1.0) == pytest.approx(0.1)
    sparse = torch.tensor([0.0, math.nan]).to_sparse()
    assert not is_finite(sparse)
    assert is_finite(torch.ones(1))


def test_what_differs_in_a_bit_is_named():
    def gradient(value):
        return Gradient(
            loss=0.0, weight=1.0, gradients={"a": torch.tensor([1.0]), "b": None},
            buffers={"c": torch.tensor([value])},
        )  # fmt: skip

    one, other = gradient(1.0), gradient(1.5)
    assert different(one, one) == []
    assert different(one, other) == ["c"]
    assert change(other, one, "c") == 0.5
    assert change(other, one, "b") == math.inf
