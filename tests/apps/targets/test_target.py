"""What all kinds of targets share."""

import pytest
import torch

from volano.apps.targets.classes import OneClass
from volano.apps.targets.target import hardest


def test_the_hardest_examples():
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0], [1.0, 0.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1])
    found = hardest(OneClass(names=("a", "b")), logits, labels, 3)
    assert [(one.row, one.true, one.predicted) for one in found] == [
        (1, "a", "b"),
        (3, "b", "a"),
        (2, "a", "a"),
    ]
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    for one in found:
        assert one.loss == pytest.approx(losses[one.row].item())
        assert one.probability == pytest.approx(logits[one.row].softmax(0).max().item())


def test_of_fewer_all():
    assert (
        len(hardest(OneClass(names=("a", "b", "c")), torch.zeros(2, 3), torch.tensor([0, 1]), 10))
        == 2
    )
