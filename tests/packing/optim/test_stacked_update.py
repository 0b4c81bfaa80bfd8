"""The update of all members at once against each member's own optimizer, with every option another
for each."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import volano
from volano.device import Device
from volano.packing import Member
from volano.packing.member import MemberState
from volano.packing.optim.per_member import StockOptimizer
from volano.packing.optim.stacked_update import StackedUpdate, why_not_flat
from volano.packing.program.stack import Stack
from volano.training import MuonAdamW

K, CLIPS = 3, [None, 0.5, 2.0]
_PLAN, _CPU = volano.Plan.baseline(), Device("cpu")


def sgd(k: int, **more: Any) -> Any:
    return functools.partial(
        torch.optim.SGD,
        lr=0.01 * (k + 1),
        momentum=(0.0, 0.9, 0.8)[k],
        dampening=0.1 * k,
        weight_decay=0.01 * k,
        **more,
    )


def nesterov(k: int) -> Any:
    return functools.partial(
        torch.optim.SGD, lr=0.01 * (k + 1), momentum=0.5 + 0.2 * k, nesterov=True
    )


def adam(k: int, kind: Any = torch.optim.Adam, **more: Any) -> Any:
    return functools.partial(
        kind,
        lr=0.01 * (k + 1),
        betas=(0.9 - 0.1 * k, 0.99 - 0.01 * k),
        eps=10.0 ** (k - 8),
        weight_decay=0.01 * k,
        **more,
    )


def muon(k: int, **more: Any) -> Any:
    def optimizer(parameters: Any) -> MuonAdamW:
        matrices, vectors = [], []
        for parameter in parameters:
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
        first = {
            "params": matrices,
            "algorithm": "muon",
            "lr": 0.01 * (k + 1),
            "momentum": 0.9 - 0.1 * k,
        }
        second = {
            "params": vectors,
            "algorithm": "adamw",
            "lr": 0.02,
            "betas": (0.8, 0.9 + 0.01 * k),
        }
        return MuonAdamW(
            [{**first, "weight_decay": 0.1 * k, "ns_dtype": torch.float64, **more}, second]
        )

    return optimizer


KINDS = {
    "SGD": sgd,
    "SGD with nesterov": nesterov,
    "Adam": adam,
    "AdamW": functools.partial(adam, kind=torch.optim.AdamW),
    "Muon": muon,
    "Muon, renormalized": functools.partial(muon, renormalize=True),
}


@pytest.fixture
def solos(make_task):
    def made(optimizer: Any, **more: Any) -> list[MemberState]:
        tasks = [
            make_task(
                model=lambda: nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double(),
                optimizer=optimizer(k), clip_norm=CLIPS[k], schedule=volano.cosine(warmup=0.1 * k),
                seed=k, **more,
            )
            for k in range(K)
        ]  # fmt: skip
        return [
            MemberState(Member(number=k, task=task), _PLAN, _CPU) for k, task in enumerate(tasks)
        ]

    return made


def gradients(stack: Stack, step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        n: torch.randn(t.shape, dtype=t.dtype, generator=generator)
        for n, t in stack.parameters.items()
    }


class Flat:
    def __init__(self, members: list[MemberState]) -> None:
        assert why_not_flat(members) is None
        self.stack = Stack([solo.model for solo in members])
        self.update = StackedUpdate(members, self.stack.parameters)

    def step(self, step: int, given: dict[str, Tensor] | None = None) -> Tensor | None:
        given = gradients(self.stack, step) if given is None else given
        return self.update(
            self.stack.parameters, given, self.update.state, self.update.vectors([step] * K)
        )


class Stock:
    def __init__(self, members: list[MemberState]) -> None:
        self.stack = Stack([solo.model for solo in members])
        self.optimizer = StockOptimizer(members)

    def step(self, step: int) -> Tensor | None:
        return self.optimizer.step(gradients(self.stack, step), [step] * K)


def difference(one: Stack, other: Stack) -> float:
    pairs = [(tensor, other.parameters[name]) for name, tensor in one.parameters.items()]
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_what_each_does_alone(kind, solos):
    flat, stock = (
        Flat(solos(KINDS[kind], duration="100st")),
        Stock(solos(KINDS[kind], duration="100st")),
    )
    for step in range(100):
        norms = flat.step(step), stock.step(step)
        torch.testing.assert_close(*norms, rtol=1e-12, atol=0)
    assert difference(flat.stack, stock.stack) <= 1e-12


def test_a_norm_is_that_of_the_parameters_that_are_updated(solos):
    def head(model: nn.Module) -> list[dict[str, Any]]:
        return [{"params": [*model.children()][-1].parameters()}]

    flat, stock = (kind(solos(sgd, parameter_groups=head)) for kind in (Flat, Stock))
    for step in range(10):
        norms = flat.step(step), stock.step(step)
        torch.testing.assert_close(*norms, rtol=1e-12, atol=0)
    assert difference(flat.stack, stock.stack) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_the_members_own_optimizers_hold_its_state(kind, solos):
    members, whole = solos(KINDS[kind], duration="60st"), Flat(solos(KINDS[kind], duration="60st"))
    flat = Flat(members)
    for step in range(20):
        flat.step(step)
    flat.update.settle([20] * K)
    stock = Stock(members)
    for step in range(20, 40):
        stock.step(step)
    again = Flat(members)
    for step in range(40, 60):
        again.step(step)
    for step in range(60):
        whole.step(step)
    assert difference(again.stack, whole.stack) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_a_settled_optimizer_keeps_what_it_would_keep_alone(kind, solos):
    members, others = solos(KINDS[kind]), solos(KINDS[kind])
    flat, stock = Flat(members), Stock(others)
    given = {
        name: gradient for name, gradient in gradients(flat.stack, 0).items() if name != "1.weight"
    }
    flat.step(0, given)
    stock.optimizer.step(given, [0] * K)
    flat.update.settle([1] * K)
    for mine, other in zip(members, others, strict=True):
        state, expected = (
            mine.optimizer.state_dict()["state"],
            other.optimizer.state_dict()["state"],
        )
        assert state.keys() == expected.keys()
        for place, parts in expected.items():
            assert state[place].keys() == parts.keys()
            for part, value in parts.items():
                torch.testing.assert_close(state[place][part], value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_swapped_options_show(kind, solos):
    def swapped(k: int) -> Any:
        return KINDS[kind](k if k == 2 else 1 - k)

    flat, stock = Flat(solos(swapped)), Stock(solos(KINDS[kind]))
    for step in range(10):
        flat.step(step)
        stock.step(step)
    assert difference(flat.stack, stock.stack) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_stays_in_its_member(kind, solos):
    healthy, hurt = Flat(solos(KINDS[kind])), Flat(solos(KINDS[kind]))
    healthy.step(0)
    given = gradients(hurt.stack, 0)
    given["0.weight"][1, 0, 0] = torch.nan
    norms = hurt.step(0, given)
    assert norms is not None
    assert norms.isnan().tolist() == [False, True, False]
    for name, tensor in hurt.stack.parameters.items():
        assert tensor[1].isnan().any()
        assert torch.equal(tensor[[0, 2]], healthy.stack.parameters[name][[0, 2]])


def test_a_norm_that_overflows_hurts_nobody_who_does_not_clip(solos):
    flat = Flat(solos(KINDS["SGD"]))
    flat.step(0, {name: torch.full_like(t, 1e200) for name, t in flat.stack.parameters.items()})
    assert all(tensor[0].isfinite().all() for tensor in flat.stack.parameters.values())


def hooked(k: int, place: str = "register_step_post_hook") -> Any:
    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        made = torch.optim.SGD(parameters, lr=0.1)
        getattr(made, place)(held_small)
        return made

    return optimizer


def held_small(optimizer: Any, *_: Any) -> None:
    with torch.no_grad():
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.clamp_(-0.05, 0.05)


def test_hooks_on_a_step_run_with_the_members_own_optimizers(solos):
    stock = Stock(solos(hooked))
    stock.step(0)
    assert all(tensor.abs().max() <= 0.05 for tensor in stock.stack.parameters.values())


def scheduled(k: int) -> Any:
    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        made = torch.optim.SGD(parameters, lr=0.1)
        # Counts the steps, in a step that it puts in place of the class's.
        torch.optim.lr_scheduler.ConstantLR(made)
        return made

    return optimizer


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (lambda k: torch.optim.RMSprop, "RMSprop has no form for many members"),
        (functools.partial(adam, amsgrad=True), "Adam with amsgrad"),
        (functools.partial(adam, maximize=True), "Adam with maximize"),
        (functools.partial(adam, decoupled_weight_decay=True), "Adam with decoupled_weight_decay"),
        (
            lambda k: functools.partial(torch.optim.AdamW, lr=torch.tensor(0.1)),
            "AdamW with a tensor for an option",
        ),
        (hooked, "SGD with hooks on its step"),
        (functools.partial(hooked, place="register_step_pre_hook"), "SGD with hooks on its step"),
        (scheduled, "SGD with hooks on its step"),
        (
            lambda k: muon(k, ns_steps=4 + k),
            "MuonAdamW with options that shape the update differently",
        ),
    ],
)
def test_what_it_does_not_take_is_said(optimizer, reason, solos):
    assert why_not_flat(solos(optimizer)) == reason


def test_groups_must_hold_the_same_parameters(solos):
    members = solos(adam)
    task = dataclasses.replace(
        members[1].task,
        parameter_groups=lambda model: [{"params": [p]} for p in model.parameters()],
    )
    members[1] = MemberState(Member(number=1, task=task), _PLAN, _CPU)
    assert why_not_flat(members) == "the members' parameters are grouped differently"
