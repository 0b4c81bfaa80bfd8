"""Frozen values stay frozen alone, and each use is heard."""

import pytest
import torch
from torch import nn

from volano.training.prefix.frozen_value import FrozenValue, Watcher, marked, unmarked


class Notes(Watcher):
    def __init__(self, constants=()):
        self.constants, self.uses, self.draws = constants, [], False

    def note_use(self, values, name):
        self.uses.append((name, frozenset().union(*(value.sources for value in values))))

    def has_drawn(self):
        return self.draws


@pytest.fixture
def notes():
    return Notes()


def value_of(notes, tensor=None, source=(0, 0), region="a", is_real=True):
    tensor = torch.rand(4, 3) if tensor is None else tensor
    return marked(tensor, notes, region, frozenset({source}), is_real)


@pytest.mark.parametrize(
    "function",
    [
        torch.relu, lambda x: x.mean(1), lambda x: x[:, 1:], lambda x: x.view(x.shape[0], -1),
        lambda x: nn.functional.pad(x, (0, 1)), lambda x: x * 2 + 1, lambda x: torch.cat([x, x]),
        lambda x: x.max(1)[0], lambda x: x.to(torch.float64), lambda x: x.clone().relu_(),
        nn.Dropout().eval(), nn.Flatten(),
    ],
)  # fmt: skip
def test_functions_of_frozen_values_alone_are_frozen(notes, function):
    x = torch.rand(4, 3)
    found = function(value_of(notes, x))
    assert isinstance(found, FrozenValue)
    assert found.sources == {(0, 0)}
    assert torch.equal(unmarked(found), function(x))
    assert notes.uses == []


def test_sources_add_up(notes):
    found = value_of(notes) + value_of(notes, source=(2, 1))
    assert found.sources == {(0, 0), (2, 1)}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum().item(), lambda x: bool(x.sum() > 0), lambda x: x.tolist(),
        nn.Linear(3, 2), lambda x: x + torch.rand(4, 3), lambda x: torch.zeros(4, 3).add_(x),
        lambda x: torch.zeros(4, 3).__setitem__(0, x[0]),
        lambda x: torch.add(x, 1, out=torch.zeros(4, 3)),
    ],
)  # fmt: skip
def test_uses_are_heard_and_end_it(notes, function):
    found = function(value_of(notes))
    assert notes.uses
    assert notes.uses[-1][1] == {(0, 0)}
    assert not isinstance(found, FrozenValue)


def test_a_constant_is_no_other_tensor():
    weight = torch.rand(3)
    notes = Notes({id(weight)})
    assert isinstance(value_of(notes) * weight, FrozenValue)
    assert notes.uses == []


def test_values_of_two_regions_and_draws_are_uses(notes):
    assert not isinstance(value_of(notes) + value_of(notes, region="b"), FrozenValue)
    notes.draws = True
    assert not isinstance(torch.relu(value_of(notes)), FrozenValue)
    assert len(notes.uses) == 2


def test_a_stand_in_takes_functions_in_place(notes):
    nan = torch.full((1, 1), float("nan")).expand(4, 3)
    found = nn.functional.relu(value_of(notes, nan, is_real=False), inplace=True)
    assert isinstance(found, FrozenValue)
    assert not found.is_real
    assert found.shape == (4, 3)
    assert not (found + value_of(notes)).is_real
