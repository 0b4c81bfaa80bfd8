"""Compiled plans: what the real partitioner keeps, and the interval in which a step's memory
lies."""

import functools

import pytest
import torch
from torch import nn

from conftest import make_mlp
from volano import Plan
from volano.planner.memory.compiled import ABOVE_KEPT, ABOVE_UNFUSED, interval
from volano.planner.memory.predict import measure, predict_memory

COMPILED = Plan.baseline().pin(compile=True)


def make_chain():
    """Layers of width 1024 on 32 examples: activations weigh little beside them, but there are
    many."""
    layers = [part for _ in range(6) for part in (nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64))]
    return nn.Sequential(nn.Unflatten(1, (1, 64)), nn.Upsample((64 * 32,)), nn.Unflatten(2, (32,
    64)), *layers, nn.Flatten(), nn.Linear(32 * 64, 10))  # fmt: skip


def test_the_interval_holds_what_is_kept_and_what_is_not_fused():
    found = interval(100, 140, 1.0)
    assert (found.lower, found.point, found.upper) == (100, 100, int(ABOVE_UNFUSED * 140))
    assert interval(100, 140, 0.5).point == 120
    assert interval(100, 90, 1.0).upper == int(ABOVE_KEPT * 100)


# There the memory of compiled plans is not predicted.
compiles_fakes = pytest.mark.skipif(
    torch.__version__ < (2, 10),
    reason="torch 2.9 compiles nothing for fake tensors of another mode",
)


@compiles_fakes
@pytest.mark.compiles
def test_a_smaller_budget_of_activations_keeps_less(make_task):
    task = make_task(model=make_chain, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    whole = predict_memory(task, COMPILED).memory
    some = predict_memory(task, COMPILED.pin(activation_budget=0.3)).memory
    eager = predict_memory(task, Plan.baseline()).memory
    assert whole.lower <= whole.peak <= whole.upper
    assert sum(whole.categories.values()) == whole.peak
    assert some.lower < 0.8 * whole.lower < eager.peak


@compiles_fakes
@pytest.mark.compiles
def test_randomness_is_found_in_the_graphs(make_task):
    assert predict_memory(
        make_task(model=functools.partial(make_mlp, dropout=0.5)), COMPILED
    ).has_randomness
    assert not predict_memory(make_task(), COMPILED).has_randomness


@pytest.mark.compiles
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself
def test_a_compiled_step_lies_in_its_interval(make_task):
    predicted, measured = (
        predict_memory(make_task(model=make_chain), COMPILED).memory,
        measure(make_task(model=make_chain), COMPILED),
    )
    assert measured.origin == "measured"
    assert 0.6 * predicted.lower < measured.peak <= predicted.upper
