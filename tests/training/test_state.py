import copy

import torch

from volano import Plan
from volano.device import Device
from volano.training import Session
from volano.training.state import make_state


def state_of(task, plan, **options):
    return make_state(
        task, plan, Device("cpu"), Session.make_model(task), on_notice=lambda _: None, **options
    )


def test_it_comes_back_with_the_implementation_that_it_has_here(make_task):
    task = make_task(
        ema_decay=0.5, optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.1)
    )
    first, second = (
        state_of(task, Plan(optimizer="foreach")),
        state_of(task, Plan(optimizer="fused")),
    )
    first.model(torch.ones(2, 64)).sum().backward()
    first.optimizer.step()
    first.ema.update(0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for mine, theirs in zip(second.models, first.models, strict=True):
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name])
    assert (
        second.optimizer.state_dict()["state"].keys()
        == first.optimizer.state_dict()["state"].keys()
    )
    assert second.optimizer.param_groups[0]["fused"] is True


def test_the_average_is_kept_where_there_is_one(make_task):
    plain, averaged = state_of(make_task(), Plan()), state_of(make_task(ema_decay=0.5), Plan())
    assert plain.kept_model is plain.model
    assert averaged.kept_model is averaged.ema.model
    assert plain.state_dict()["ema"] is None


def test_what_does_not_apply_is_said(make_task):
    notices = []
    task = make_task(optimizer=lambda parameters: torch.optim.Rprop(parameters))
    make_state(
        task,
        Plan(optimizer="fused"),
        Device("cpu"),
        Session.make_model(task),
        on_notice=notices.append,
    )
    assert notices == [
        "optimizer=fused does not apply: Rprop has no fused implementation of torch's; it runs as "
        "given"
    ]


def test_a_place_leads_to_the_tensor_that_is_sharded_alike(make_task):
    state = state_of(make_task(ema_decay=0.5), Plan())
    (name, parameter), *_ = state.model.named_parameters()
    assert torch.equal(state.template(f"model.{name}"), parameter)
    assert torch.equal(state.template(f"ema.{name}"), state.ema.model.state_dict()[name])
    assert torch.equal(state.template("optimizer.state.0.momentum_buffer"), parameter)
    assert state.template("optimizer.state.999.momentum_buffer") is None
    assert state.template("scaler.scale") is None
