"""Tensors of K modules as one, and their averages."""

import copy

import torch
from torch import nn

from volano.packing.program.stack import Stack, StackedEma
from volano.training.optim.ema import Ema


def nets(num=3):
    made = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)) for _ in range(num)]
    for net in made:
        net[2].weight = net[0].weight
        net[2].bias.requires_grad_(False)
    return made


def test_modules_are_views_of_the_stack_and_tied_tensors_stay_tied():
    modules = nets()
    before = [module[0].weight.detach().clone() for module in modules]
    stack = Stack(modules)
    assert set(stack.parameters) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert set(stack.frozen) == {"2.bias"}
    assert torch.equal(stack.parameters["0.weight"], torch.stack(before))
    with torch.no_grad():
        stack.parameters["0.weight"][1].fill_(7.0)
    assert modules[1][2].weight.unique().tolist() == [7.0]
    assert torch.equal(modules[0][0].weight, before[0])
    modules[2].load_state_dict(modules[0].state_dict())
    assert torch.equal(stack.parameters["0.bias"][2], stack.parameters["0.bias"][0])


def test_another_memory_format_is_named():
    assert Stack([nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)]).reordered == "weight"  # pyright: ignore[reportCallIssue]


def test_averages_are_those_of_each_alone():
    decays, modules = [0.9, 0.5], nets(2)
    copies = [copy.deepcopy(module) for module in modules]
    emas, alone = [Ema(module, decay) for module, decay in zip(modules, decays, strict=True)], []
    for module, decay in zip(copies, decays, strict=True):
        alone.append(Ema(module, decay))
    averages = Stack([ema.model for ema in emas])
    together = StackedEma(averages, Stack(modules), decays, emas[0].model.state_dict().keys())
    for step in range(15):
        with torch.no_grad():
            for module in (*modules, *copies):
                module[0].weight.add_(0.1)
                module[1].num_batches_tracked.add_(1)
        together.update(together.shares([step, step]))
        for ema in alone:
            ema.update(step)
    for mine, its in zip(emas, alone, strict=True):
        for name, tensor in its.model.state_dict().items():
            torch.testing.assert_close(mine.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)
