"""Gradients of fp16 inside of a model's call: the script sees them as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from volano.script.apply import applied
from volano.script.loss_scaling import LossScaling
from volano.script.plan import ScriptPlan

FP16 = ScriptPlan(precision="fp16")


@pytest.fixture(autouse=True)
def computed_here(monkeypatch):
    """fp16 on the CPU, where it is not planned: its numbers are an accelerator's."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("volano.device.Device.supports", lambda *_: True)


def gradients(plan, factor, *, wants_input=False):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(4, 8, requires_grad=wants_input)
    with applied(plan) as result:
        (net(x).square().mean() * factor).backward()
    found = [parameter.grad for parameter in net.parameters()]
    return [*found, x.grad] if wants_input else found, result


def test_gradients_below_its_range_are_kept_and_seen_without_the_scale():
    expected, _ = gradients(ScriptPlan(), 1e-6, wants_input=True)
    found, result = gradients(FP16, 1e-6, wants_input=True)
    assert result.deeds == ("Sequential in fp16",)
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        assert torch.linalg.vector_norm(one - other) <= 0.01 * torch.linalg.vector_norm(one)


def loop(optimizer_of, *, factors, has_closure=False):
    torch.manual_seed(0)
    net, states = nn.Linear(4, 1), []
    optimizer = optimizer_of(net.parameters())
    for factor in factors:

        def closure(factor=factor):
            optimizer.zero_grad()
            loss = net(torch.ones(2, 4)).mean() * factor
            loss.backward()
            return loss

        if has_closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        states.append(net.weight.detach().clone())
    return states


@pytest.mark.parametrize("has_closure", [False, True])
def test_a_step_that_overflows_is_skipped_and_said(has_closure):
    with applied(FP16) as result:
        first, second, third = loop(torch.optim.Adam, factors=(1, 1e9, 1), has_closure=has_closure)
    assert torch.equal(first, second)
    assert not torch.equal(second, third)
    assert third.isfinite().all()
    assert result.notices == ("a step is skipped when its gradient overflows in fp16",)


def test_the_scale_falls_with_an_overflow_and_grows_after_many_steps(monkeypatch):
    monkeypatch.setattr("volano.script.loss_scaling._STEPS_TO_GROW", 2)
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    with applied(ScriptPlan(threads=1)) as notes:
        scaling = LossScaling(notes)
    scaling.watch([parameter])
    start = scaling.scale
    with scaling.installed():
        for value in (float("inf"), 1.0, 1.0):
            optimizer.zero_grad()
            (parameter * value).sum().backward()
            optimizer.step()
            if value != 1.0:
                assert scaling.scale == start / 2
    assert scaling.scale == start
    assert parameter.item() == pytest.approx(0.8)


def test_a_model_that_is_not_called_under_the_plan_keeps_its_gradients():
    net = nn.Linear(4, 1)
    with applied(FP16):
        net(torch.ones(2, 4)).sum().backward()
        net.eval()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
        optimizer.step()
        optimizer.zero_grad()
        net(torch.ones(2, 4)).sum().backward()
    assert torch.equal(net.weight.grad, torch.full((1, 4), 2.0))


def test_an_overflow_of_gradients_that_were_cleared_skips_no_step():
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    with applied(ScriptPlan(threads=1)) as notes:
        scaling = LossScaling(notes)
    scaling.watch([parameter])
    with scaling.installed():
        for value in (float("inf"), 1.0):  # the first is of another loss, and not taken
            optimizer.zero_grad()
            (parameter * value).sum().backward()
        optimizer.step()
    assert parameter.item() == pytest.approx(0.9)
