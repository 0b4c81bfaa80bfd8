"""Steps from lists that are gathered once are those of torch's own optimizers, bit by bit."""

import dataclasses
import functools

import pytest
import torch

from packing.structures import Structure, plain_mlp, sgd
from volano import Plan
from volano.device import Device
from volano.packing.member import Member, MemberState
from volano.packing.optim.per_member import StockOptimizer, multiplier_at
from volano.packing.program.stack import Stack


def members(optimizer):
    tasks = Structure(model=plain_mlp, optimizer=sgd).tasks(dtype=torch.float32, clip_norm=None)
    return [
        MemberState(
            Member(number=number, task=dataclasses.replace(task, optimizer=optimizer)),
            Plan.baseline("cpu"),
            Device("cpu"),
        )
        for number, task in enumerate(tasks[:3])
    ]


def fused(kind, **options):
    """An optimizer of torch's whose update is one kernel."""
    return functools.partial(kind, fused=True, **options)


@pytest.mark.parametrize(
    ("optimizer", "is_gathered"),
    [
        (fused(torch.optim.AdamW, lr=1e-2, weight_decay=0.1), True),
        (fused(torch.optim.Adam, lr=1e-2, betas=(0.8, 0.9)), True),
        (fused(torch.optim.AdamW, lr=1e-2, amsgrad=True), False),
        (functools.partial(torch.optim.AdamW, lr=1e-2), False),
        (fused(torch.optim.SGD, lr=1e-2, momentum=0.9), False),
    ],
)
def test_steps_from_lists_are_those_of_the_optimizer(optimizer, is_gathered):
    solos, alone = (members(optimizer) for _ in range(2))
    stack, own = Stack([solo.model for solo in solos]), StockOptimizer(solos)
    draw = torch.Generator().manual_seed(1)
    for step in range(4):
        # The last one of them has no gradient for a parameter; the first three are of all.
        gradients = {
            name: torch.randn(t.shape, generator=draw)
            for name, t in list(stack.parameters.items())[step == 3 :]
        }
        own.step(gradients, [step] * len(solos))
        for slot, solo in enumerate(alone):
            for name, parameter in solo.model.named_parameters():
                parameter.grad = gradients[name][slot].clone() if name in gradients else None
            for group in solo.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * multiplier_at(solo, step)
            solo.optimizer.step()
        if step == 2:
            assert (own._fused is not None) == is_gathered
    for packed, solo in zip(solos, alone, strict=True):
        for mine, theirs in zip(packed.model.parameters(), solo.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)
            ours, expected = packed.optimizer.state[mine], solo.optimizer.state[theirs]
            assert ours.keys() == expected.keys()
            assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_an_optimizer_with_hooks_makes_its_own_steps():
    solos = members(fused(torch.optim.AdamW, lr=1e-2))
    stack, calls = Stack([solo.model for solo in solos]), []
    solos[0].optimizer.register_step_post_hook(lambda *_: calls.append(1))
    own = StockOptimizer(solos)
    for step in range(3):
        gradients = {name: torch.ones_like(t) for name, t in stack.parameters.items()}
        own.step(gradients, [step] * len(solos))
    assert len(calls) == 3
