from torch import nn

from volano.plan.network import NetworkPart
from volano.training.network_parts import network_parts


class Wrapped(nn.Module):
    """A module that holds nothing but another one."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def test_parts_are_those_within_wrappers():
    trunk = nn.Linear(4, 3).requires_grad_(False)
    model = Wrapped(nn.Sequential(trunk, nn.ReLU(), nn.Linear(3, 2)))
    assert network_parts(model) == (
        NetworkPart(name="inner.0", module="Linear", parameters=15, trained=0),
        NetworkPart(name="inner.2", module="Linear", parameters=8, trained=8),
    )


def test_a_layer_alone_and_tied_parameters():
    (only,) = network_parts(nn.Linear(2, 2))
    assert (only.name, only.module, only.parameters) == ("the model", "Linear", 6)
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    assert [part.parameters for part in network_parts(nn.Sequential(first, second))] == [9, 0]


def test_many_parts_are_taken_together():
    parts = network_parts(nn.Sequential(*(nn.Linear(1, 1) for _ in range(20))))
    assert len(parts) == 12
    assert (parts[-1].name, parts[-1].parameters, parts[-1].trained) == ("9 more", 18, 18)
