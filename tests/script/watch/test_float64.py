"""Models in float64, for a reference."""

from __future__ import annotations

import torch
from torch import nn

from volano.script.watch.float64 import computed_in_float64


def test_the_outermost_call_of_what_is_trained_is_wide_inside_alone():
    seen = []
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[1].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    before = nn.Module.__call__
    with computed_in_float64():
        out = model(torch.ones(1, 2))
        out.sum().backward()
        nn.Sigmoid()(torch.ones(1))  # a loss has nothing to train
    assert nn.Module.__call__ == before
    assert seen == [torch.float64]
    assert out.dtype == torch.float32
    assert model[0].weight.grad.dtype == torch.float64
