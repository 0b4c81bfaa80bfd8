"""A member as it would train alone, and its state."""

import torch

from conftest import assert_same
from packing.structures import CONFIGS, STRUCTURES
from volano import Plan
from volano.device import Device
from volano.packing.member import Member, MemberState

PLAN, CPU = Plan.baseline("cpu").pin(optimizer="fused"), Device("cpu")


def stepped(member, num_steps=1):
    solo = MemberState(member, PLAN, CPU)
    for _ in range(num_steps):
        solo.model(torch.rand(4, 1, 8, 8)).square().mean().backward()
        solo.optimizer.step()
        solo.ema.update(solo.step)
        solo.step += 1
    return solo


def test_a_state_is_where_another_member_goes_on_and_stays_as_it_is():
    task = STRUCTURES["mlp"].task(CONFIGS[0], dtype=torch.float32)
    state = stepped(Member(number=3, task=task), 2).state()
    again = MemberState(Member(number=3, task=task, state=state), PLAN, CPU)
    assert again.step == 2
    assert again.kept_model is again.ema.model
    assert_same(again.state(), state)
    assert all(group["fused"] for group in again.optimizer.param_groups)
    kept = {name: tensor.clone() for name, tensor in state["model"].items()}
    moment = state["optimizer"]["state"][0]["exp_avg"].clone()
    stepped(Member(number=3, task=task, state=state))
    assert_same(state["model"], kept)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], moment)


def test_a_members_code_may_be_called_for_trial_without_noticing():
    calls = []

    def objective(model, batch):
        calls.append(1)
        return len(calls)

    member = Member(number=0, task=STRUCTURES["mlp"].task(CONFIGS[0], objective=objective))
    tried = member.with_private_code()
    assert [tried.task.objective(None, None), tried.task.objective(None, None)] == [1, 2]
    assert calls == []
    assert member.task.objective(None, None) == 1
