"""What one look at a pass finds; all of it is in test_find_prefix.py."""

import torch
from torch import nn

from conftest import classification
from training.prefix.frozen_nets import Frozen, Pieces
from volano.device import Device
from volano.training.prefix.observe_pass import Boundary, constants_of, find_boundary


def boundary_of(model):
    batch = torch.rand(4, 64), torch.arange(4)
    return find_boundary(model, lambda: classification(model, batch), 4, Device("cpu"))


def test_calls_and_what_is_used_of_them():
    found = boundary_of(Pieces())
    assert isinstance(found, Boundary)
    assert found.calls == (("trunk.layers.0", 0), ("trunk.layers.1", 0))
    assert found.used == (frozenset({(1, 0)}),)


def test_two_trunks_are_two_regions():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = (nn.Linear(32, 8).requires_grad_(False) for _ in range(2))
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            left, right = x.chunk(2, 1)
            return self.head(torch.cat([self.left(left), self.right(right)], 1))

    found = boundary_of(Two())
    assert isinstance(found, Boundary)
    assert [region for _, region in found.calls] == [0, 1]
    alone = found.without({0})
    assert alone is not None
    assert list(alone.kept_units) == ["right"]
    assert [region for _, region in alone.calls] == [None, 0]
    assert found.without({0, 1}) is None


def test_statistics_that_move_are_no_constants():
    model = Frozen()
    norm = model.trunk.layers[1]
    assert id(norm.running_mean) in constants_of(model)
    norm.train()
    assert id(norm.running_mean) not in constants_of(model)
    assert id(model.head[1].weight) not in constants_of(model)
