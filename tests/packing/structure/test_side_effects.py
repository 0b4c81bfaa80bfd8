"""What a person's code keeps from call to call stays the person's, and is seen when it changes."""

import collections
import functools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from packing.comparing import alone, deviation, packed, results
from packing.structures import CONFIGS, Structure, plain_mlp, sgd
from volano.errors import UsageError
from volano.packing import Member, Pack, choose_engine
from volano.packing.structure.side_effects import changed_leaf, leaves_of, private_copy

MLP = Structure(model=plain_mlp, optimizer=sgd)


class Centred:
    """Keeps the mean image in a tensor of its own, changed in place."""

    def __init__(self):
        self.mean = torch.zeros(1, 8, 8, dtype=torch.float64)

    def __call__(self, model, batch):
        if model.training:
            self.mean.lerp_(batch[0].mean(0), 0.1)
        return F.cross_entropy(model(batch[0] - self.mean), batch[1])


def counting():
    """Counts its calls in a list of the function around it."""
    calls = [0]

    def objective(model, batch):
        calls[0] += model.training
        return F.cross_entropy(model(batch[0]), batch[1]) * (1.0 + 0.001 * calls[0])

    return objective


def noisy(model, batch):
    """Draws from NumPy's own generator, and seldom does anything with it."""
    keep = not model.training or np.random.rand() > 0.01
    return F.cross_entropy(model(batch[0] * keep), batch[1])


WAYS = {
    "a tensor": (Centred, "objective.mean changes"),
    "a cell": (counting, r"objective.calls\[0\] changes"),
    "NumPy's generator": (lambda: noisy, "random numbers of Python's or NumPy's"),
}


@pytest.fixture(autouse=True)
def numpy_as_it_was():
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@pytest.mark.parametrize("way", WAYS)
def test_what_changes_with_each_call_is_refused(way):
    make, words = WAYS[way]
    tasks = [MLP.task(config, objective=make()) for config in CONFIGS]
    with pytest.raises(
        UsageError, match=f"Engine lowered does not take these tasks; got .*{words}"
    ):
        packed(tasks, 2, "lowered")


@pytest.mark.parametrize("way", ["a tensor", "a cell"])
def test_a_choice_calls_nothing_that_is_the_persons(way, monkeypatch):
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
    make = WAYS[way][0]
    tasks = [MLP.task(config, objective=make()) for config in CONFIGS]
    heard = []
    pack = Pack([Member(number=n, task=task) for n, task in enumerate(tasks)], device="cpu",
    num_steps=10_000, on_notice=heard.append)  # fmt: skip
    assert pack.engine == "loop"
    assert len([text for text in heard if "changes with each pass" in text]) == 1
    pack.advance(dict.fromkeys(pack.numbers, 5))
    for config, mine in zip(CONFIGS, results(pack), strict=True):
        assert deviation(mine, alone(MLP.task(config, objective=make()), 5)) == 0.0


def test_a_copy_shares_parameters_and_nothing_that_changes():
    table, weight, drawn = torch.zeros(3), nn.Parameter(torch.ones(2)), random.Random(1)
    seen, names = collections.deque([1]), np.arange(3)

    class Held:
        def __init__(self):
            self.function, self.weight, self.seen, self.names = call, weight, seen, names

    def call():
        table.add_(1)
        drawn.random()
        return table

    held = Held()
    before = leaves_of(held)
    twin = private_copy(functools.partial(held.function))
    assert twin()[0] == 1
    other = private_copy(held)
    assert (other.weight is weight, other.seen is seen, other.names is names) == (
        True,
        False,
        False,
    )
    other.seen.append(2)
    other.names[0] = 5
    other.function()
    assert changed_leaf(before, leaves_of(held)) is None
    for change, place in (
        (lambda: call(), "function"), (lambda: seen.append(3), "seen"), (lambda: names.fill(2),
        "names"),
    ):  # fmt: skip
        before = leaves_of(held)
        change()
        assert changed_leaf(before, leaves_of(held)).startswith(place)


def test_functions_of_torch_stay_themselves():
    loss = functools.partial(F.cross_entropy, weight=torch.ones(3))
    twin = private_copy(loss)
    assert twin.func is F.cross_entropy
    assert twin.keywords["weight"] is not loss.keywords["weight"]


class InSlot:
    """Counts its calls where nobody looks."""

    __slots__ = ("calls",)

    def __init__(self):
        self.calls = 0

    def __call__(self, model, batch):
        self.calls += model.training
        return F.cross_entropy(model(batch[0]), batch[1]) * (1.0 + 0.001 * self.calls)


class Listed(list):
    """Keeps in a list of a class of its own how often it was called."""

    def __call__(self, model, batch):
        self.append(0)
        return F.cross_entropy(model(batch[0]), batch[1]) * (1.0 + 0.001 * len(self))


def keyed():
    """Keeps it under a key that is no plain value."""
    key = object()
    calls = {key: 0}

    def objective(model, batch):
        calls[key] += 1
        return F.cross_entropy(model(batch[0]), batch[1]) * (1.0 + 0.001 * calls[key])

    return objective


UNSEEN = {
    InSlot: "objective, a InSlot,",
    Listed: "objective, a Listed,",
    keyed: "objective.calls, a dict,",
}


@pytest.mark.parametrize("make", UNSEEN)
def test_what_may_change_where_nobody_looks_is_refused(make):
    objective = make()  # one for all, so that nothing splits them
    words = f"{UNSEEN[make]} cannot be looked into"
    with pytest.raises(
        UsageError, match=f"Engine lowered does not take these tasks; got .*{words}"
    ):
        packed([MLP.task(config, objective=objective) for config in CONFIGS], 2, "lowered")
