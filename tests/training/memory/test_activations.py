"""The contexts of a forward pass."""

import contextlib

import torch
from torch._functorch import config

from conftest import make_mlp
from volano import Plan
from volano.device import Device
from volano.training.memory.activations import Activations
from volano.training.memory.recompute import blocks_of


def made(model=None, **knobs):
    notices = []
    plan = Plan.baseline().pin(**knobs)
    return Activations(model or make_mlp(), plan, Device("cpu"), notices.append), notices


def test_the_budget_holds_inside_and_nowhere_else():
    before = config.activation_memory_budget
    activations, notices = made(compile=True, activation_budget=0.5)
    assert config.activation_memory_budget == before == 1.0
    with activations.kept():
        assert config.activation_memory_budget == 0.5
    assert config.activation_memory_budget == before
    assert notices == []


def test_without_a_compiler_a_budget_has_no_effect():
    activations, notices = made(activation_budget=0.5)
    assert notices == ["activation_budget=0.5 has no effect without compile"]
    with activations.kept():
        assert config.activation_memory_budget == 1.0


def test_two_knobs_hold_together():
    model = torch.nn.Sequential(make_mlp(), make_mlp())
    activations, notices = made(model, compile=True, activation_budget=0.5, recompute="blocks")
    assert notices == []
    with activations.kept():
        assert config.activation_memory_budget == 0.5
        assert all("forward" in model.get_submodule(name).__dict__ for name in blocks_of(model))
    with contextlib.suppress(ZeroDivisionError), activations.kept():
        raise ZeroDivisionError
    assert config.activation_memory_budget == 1.0
    assert "forward" not in model[0].__dict__


def test_recomputing_can_begin_later():
    activations, _ = made()
    assert not activations.start_recomputing()
    model = torch.nn.Sequential(make_mlp(), make_mlp())
    activations, _ = made(model)
    assert not activations.recomputes
    assert activations.start_recomputing()
    with activations.kept():
        assert "forward" in model[0].__dict__
