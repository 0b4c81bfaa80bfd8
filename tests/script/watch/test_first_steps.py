"""Losses, gradients and updates of first steps."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import nn

from volano.script.watch import first_steps
from volano.script.watch.first_steps import FirstSteps


def step(seen, model, optimizer, inputs):
    loss = model(inputs).square().mean()
    seen.note_loss(loss)
    optimizer.zero_grad()
    loss.backward()
    seen.note_gradients(id(optimizer), optimizer)
    optimizer.step()
    seen.note_update(id(optimizer), optimizer)
    return loss.item()


def test_the_first_gradient_and_update_are_kept_and_all_first_losses(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    seen, inputs = FirstSteps(), torch.randn(4, 3)
    losses = [step(seen, model, optimizer, inputs)]
    gradient = model.weight.grad.clone()
    losses.append(step(seen, model, optimizer, inputs))
    seen.save(tmp_path / "first.safetensors")
    found = load_file(tmp_path / "first.safetensors")
    assert seen.losses() == losses
    assert found.keys() == {"gradient.0.0", "gradient.0.1", "update.0.0", "update.0.1"}
    assert torch.equal(found["gradient.0.0"], gradient.flatten())
    torch.testing.assert_close(found["update.0.0"], -0.5 * gradient.flatten(), rtol=0, atol=1e-6)


def test_a_memory_format_changes_no_order_and_large_parameters_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(first_steps, "_MOST_ELEMENTS", 10)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = nn.Conv2d(3, 4, 3, bias=False)
        model.weight.data = torch.arange(108.0).view(4, 3, 3, 3)
        model.to(memory_format=memory_format)
        model.weight.grad = model.weight.detach().clone()
        seen, optimizer = FirstSteps(), torch.optim.SGD(model.parameters())
        seen.note_gradients(1, optimizer)
        seen.save(tmp_path / "first.safetensors")
        found.append(load_file(tmp_path / "first.safetensors")["gradient.0.0"])
    assert torch.equal(*found)
    assert found[0].tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]


def test_a_scale_that_a_fused_optimizer_takes_away_is_taken_away(tmp_path):
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 8.0)
    optimizer = torch.optim.SGD([parameter])
    optimizer.grad_scale = torch.tensor(4.0)
    seen = FirstSteps()
    seen.note_gradients(1, optimizer)
    seen.save(tmp_path / "first.safetensors")
    assert load_file(tmp_path / "first.safetensors")["gradient.0.0"].tolist() == [2, 2]


def test_an_optimizer_of_ones_own_may_have_other_things_by_these_names(tmp_path):
    parameters = [nn.Parameter(torch.ones(2)), nn.LazyLinear(1).weight]
    parameters[0].grad = torch.full((2,), 8.0)
    optimizer, seen = torch.optim.SGD(parameters[:1]), FirstSteps()
    optimizer.param_groups[0]["params"] = parameters  # not called yet
    optimizer.grad_scale = 4.0
    seen.note_gradients(1, optimizer)
    seen.note_update(1, optimizer)
    seen.save(tmp_path / "first.safetensors")
    found = load_file(tmp_path / "first.safetensors")
    assert found["gradient.0.0"].tolist() == [8.0, 8.0]
    assert found.keys() == {"gradient.0.0", "update.0.0"}
