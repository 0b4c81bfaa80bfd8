"""Candidates are run for a while, and the leaders once more in turn."""

from typing import Any

import pytest
import torch

from planner.searching import PLAIN, make_task
from volano.device import Device
from volano.planner.search import timing
from volano.planner.search.timing import HeldAllocator, Timing, TimingRuns


class FakeTimingRun:
    """A heat of 1 ms a step; of the plan with one thread it fails in the final."""

    step = 0.001

    def __init__(self, _task, plan, *_):
        self.plan, self.runs = plan, []

    def run(self, seconds, **_):
        if self.plan.threads == 1:
            raise RuntimeError("the machine is full")
        self.runs.append(seconds)
        ran.append(seconds)

    def timing(self, **_):
        return Timing(plan=self.plan, step=self.step, num_steps=1)


ran: list[float] = []


@pytest.fixture
def timing_runs(monkeypatch):
    ran.clear()
    monkeypatch.setattr(timing, "TimingRun", FakeTimingRun)
    return TimingRuns(make_task(duration="300st"), [], lambda: 60.0)


def test_an_error_in_the_final_strikes_the_candidate(timing_runs):
    one = PLAIN.pin(threads=1)
    timing_runs.timings = {plan: Timing(plan=plan, step=0.001) for plan in (PLAIN, one)}
    timing_runs.final(lambda one: one.step)
    assert timing_runs.timings[one].failure == "RuntimeError: the machine is full"
    assert timing_runs.timings[PLAIN].step == 0.001


def test_the_first_heat_is_a_share_of_the_run(timing_runs):
    timing_runs.run(PLAIN, seconds=0.5, most_share=0.01)
    assert ran == [pytest.approx(0.003)]


def test_a_candidate_runs_once(timing_runs):
    first = timing_runs.run(PLAIN, seconds=0.5)
    assert timing_runs.run(PLAIN, seconds=9.0) is first
    assert len(ran) == 1


def test_the_hopeless_are_stopped_after_a_second_look(timing_runs, monkeypatch):
    timing_runs.run(PLAIN, seconds=0.5)
    monkeypatch.setattr(FakeTimingRun, "step", 0.01)
    seen = []
    made = FakeTimingRun.timing
    monkeypatch.setattr(
        FakeTimingRun, "timing", lambda self, **how: seen.append(how) or made(self, **how)
    )
    ran.clear()
    timing_runs.run(PLAIN.pin(threads=2), seconds=0.5)
    assert ran == [0.0]
    assert seen == [{"is_stopped": True}]
    assert timing_runs.best.plan == PLAIN


def test_one_that_is_far_behind_is_not_in_the_final(timing_runs):
    steps = {PLAIN: 0.001, PLAIN.pin(threads=2): 0.0011, PLAIN.pin(threads=3): 0.002}
    timing_runs.timings = {plan: Timing(plan=plan, step=step) for plan, step in steps.items()}
    timing_runs.final(lambda one: one.step)
    assert [one.num_steps for one in timing_runs.timings.values()] == [1, 1, 0]
    assert len(ran) == 2 * timing._FINAL_ROUNDS


@pytest.mark.parametrize(("left", "is_run"), [(0.0055, False), (0.0065, True)])
def test_without_time_for_its_steps_there_is_no_final(timing_runs, left, is_run):
    timing_runs._seconds_left = lambda: left
    plans = (PLAIN, PLAIN.pin(threads=2))
    timing_runs.timings = {plan: Timing(plan=plan, step=0.001) for plan in plans}
    timing_runs.final(lambda one: one.step)
    assert bool(ran) == is_run


def test_a_leader_alone_has_no_final(timing_runs):
    timing_runs.timings = {PLAIN: Timing(plan=PLAIN, step=0.001)}
    timing_runs.final(lambda one: one.step)
    assert ran == []


@pytest.mark.parametrize(
    ("error", "reason", "is_memory"),
    [
        (RuntimeError("no such kernel\nand more"), "RuntimeError: no such kernel", False),
        (torch.OutOfMemoryError("none left"), "OutOfMemoryError: none left", True),
    ],
)
def test_a_candidate_that_fails_has_a_timing(timing_runs, monkeypatch, error, reason, is_memory):
    def fails(*_: Any):
        raise error

    monkeypatch.setattr(timing, "TimingRun", fails)
    found = timing_runs.run(PLAIN, seconds=0.5)
    assert (found.step, found.failure, found.lack_of_memory) == (None, reason, is_memory)
    assert timing_runs.best is None


def test_the_allocator_is_held_until_another_is_wanted(monkeypatch):
    entered = []
    settings: Any = Device.settings
    monkeypatch.setattr(
        Device, "settings", lambda self, **how: entered.append(how) or settings(self, **how)
    )
    held = HeldAllocator(Device("cpu"))
    assert held.set("system")
    assert not held.set("system")
    assert len(entered) == 1
    held.close()
    assert held.set("system")
    held.close()


def test_a_real_run_leaves_the_batch_as_it_was():
    def writes(model, batch):
        batch[0].zero_()
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    task = make_task(objective=writes, model=lambda: torch.nn.Linear(64, 10), duration="20st")
    batch = task.data[:32]
    before = batch[0].clone()
    runs = TimingRuns(task, [batch], lambda: 60.0)
    found = runs.run(PLAIN, seconds=0.01)
    runs.close()
    assert found.failure is None
    assert found.num_steps >= 1
    assert torch.equal(batch[0], before)
