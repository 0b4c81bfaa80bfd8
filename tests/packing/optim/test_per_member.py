"""Each member's own optimizer over views of the stack."""

import pytest
import torch

from packing.structures import CONFIGS, Structure, plain_mlp, sgd
from volano import Plan
from volano.device import Device
from volano.device.library_choices import are_denormals_flushed
from volano.packing.member import Member, MemberState
from volano.packing.optim.per_member import StockOptimizer, multiplier_at
from volano.packing.program.stack import Stack


def members(**fields):
    tasks = Structure(model=plain_mlp, optimizer=sgd).tasks(dtype=torch.float32, **fields)[:3]
    return [
        MemberState(Member(number=n, task=task), Plan.baseline("cpu"), Device("cpu"))
        for n, task in enumerate(tasks)
    ]


def test_each_clips_its_own_gradient_and_updates_its_own_slice():
    solos, alone = members(), members()
    stack = Stack([solo.model for solo in solos])
    gradients = {
        name: torch.randn(t.shape, generator=torch.Generator().manual_seed(1))
        for name, t in stack.parameters.items()
    }
    given = {name: gradient.clone() for name, gradient in gradients.items()}
    norms = StockOptimizer(solos).step(given, [5, 6, 7])  # which clips them in place
    for slot, (solo, step) in enumerate(zip(alone, (5, 6, 7), strict=True)):
        for name, parameter in solo.model.named_parameters():
            parameter.grad = gradients[name][slot].clone()
        norm = torch.nn.utils.clip_grad_norm_(solo.model.parameters(), CONFIGS[slot].clip_norm)
        for group in solo.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier_at(solo, step)
        solo.optimizer.step()
        assert torch.equal(norms[slot], norm)
        for name, parameter in solo.model.named_parameters():
            assert torch.equal(stack.parameters[name][slot], parameter)


@pytest.mark.parametrize("missing", ["1.weight", "3.bias"])
def test_a_parameter_without_a_gradient_stays(missing):
    solos = members(clip_norm=None)
    stack = Stack([solo.model for solo in solos])
    before = {name: tensor.detach().clone() for name, tensor in stack.parameters.items()}
    gradients = {
        name: torch.ones_like(tensor) for name, tensor in before.items() if name != missing
    }
    assert StockOptimizer(solos).step(gradients, [50, 50, 50]) is None
    moved = {
        name for name, tensor in stack.parameters.items() if not torch.equal(tensor, before[name])
    }
    assert moved == set(gradients)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot")
def test_an_update_takes_averages_below_normal_numbers_for_0():
    """As it is, nine tenths of a denormal number are another one."""
    solos = members(clip_norm=None)
    stack = Stack([solo.model for solo in solos])
    optimizer = StockOptimizer(solos)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in stack.parameters.items()}
    optimizer.step(zeros, [0, 0, 0])
    kept = [state["momentum_buffer"] for solo in solos for state in solo.optimizer.state.values()]
    assert kept
    for buffer in kept:
        buffer.fill_(1e-39)
    for parameter in stack.parameters.values():
        parameter.detach().zero_()  # nothing decays
    optimizer.step(zeros, [1, 1, 1])
    assert not any(buffer.any() for buffer in kept)
    assert not are_denormals_flushed()
