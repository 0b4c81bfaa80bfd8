"""The features of a frozen trunk, and the beginning that a run's folder keeps."""

import pytest
import torch
from torch import nn

from volano.device import Device
from volano.errors import NumericsError
from volano.pretrained.frozen_features import FineTuningStart, frozen_features
from volano.pretrained.head_solvers import SoftmaxHead
from volano.pretrained.linear_probe import PROBE, solve_probe
from volano.training import save_tensors


class Sum(nn.Module):
    """A trunk of two inputs."""

    def forward(self, one, other):
        return one + other


def test_batches_of_several_inputs_are_passed_in_their_order():
    x, y = torch.randn(2, 7, 3)
    batches = zip(x.split(3), y.split(3), strict=True)
    features, seconds = frozen_features(Sum().train(), batches, Device("cpu"))
    assert torch.equal(features, x + y)
    assert seconds > 0


def test_the_beginning_of_a_run_is_read_again(tmp_path):
    assert FineTuningStart.of_run(tmp_path) is None
    labels = torch.arange(12) % 2
    probe = solve_probe(torch.randn(12, 3), labels, SoftmaxHead(num_classes=2), seed=0)
    probe.save(tmp_path / PROBE, save_tensors)
    start = FineTuningStart.of_run(tmp_path)
    assert start is not None
    assert torch.equal(start.probe.weight, probe.weight)


def test_features_that_are_not_finite_are_refused():
    x = torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])
    with pytest.raises(NumericsError, match="NaN or infinity for 1 of 2 examples"):
        frozen_features(Sum(), [(x, x)], Device("cpu"))
