"""Both sides train the same task, and both learn."""

import contextlib
import dataclasses

import torch

from volano.benchmark.sides import OneByOne, PlainLoop, PlannedLoop, Together, changes_in_words
from volano.benchmark.tasks import bare, pack_tasks
from volano.device import Device
from volano.plan import Plan

CPU = Device("cpu")


def loss_of(task, model):
    with torch.no_grad():
        return float(task.objective(model, task.data[:]))


def test_a_plain_loop_trains_and_leaves_random_state_as_it_was():
    task = dataclasses.replace(pack_tasks(200)[4], clip_norm=1.0, ema_decay=0.9)
    before = torch.random.get_rng_state()
    with contextlib.closing(PlainLoop(task, CPU)) as loop:
        first = loss_of(task, loop.model)
        with loop.settled():
            loop.make(60)
        assert loss_of(task, loop.model) < 0.5 * first
        assert loop.step == 60
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_first_weights_are_those_of_a_planned_run():
    task = pack_tasks(200)[0]
    plain, planned = PlainLoop(task, CPU), PlannedLoop(bare(task, 50), CPU)
    fresh = PlainLoop(task, CPU).model.state_dict()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, fresh[name])
    with planned.settled():
        planned.make(100)  # more than the task has: it begins again
    assert planned.session.step == 102
    assert planned.planning_seconds > 0
    planned.close()


def test_a_pack_and_one_by_one_make_the_same_steps():
    tasks = pack_tasks(1000)[:3]
    together = Together(tasks, CPU)
    together.make(4)
    assert set(together.pack.steps.values()) == {5}
    with contextlib.closing(OneByOne(tasks, CPU)) as one_by_one:
        one_by_one.make(5)
        assert [loop.step for loop in one_by_one.loops] == [5, 5, 5]


def test_a_plan_in_words():
    assert changes_in_words(Plan.baseline("cpu")) == "plain eager"
    assert "precision=bf16" in changes_in_words(Plan.baseline("cpu").pin(precision="bf16"))
