"""The time of a run, and what may be measured in it."""

import time
from types import SimpleNamespace

import pytest

from volano import Plan
from volano.planner import PlanRequest
from volano.running import time_limit as module
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import NetworkCosts


def limit_of(seconds=60.0, **fields):
    return TimeLimit(planning=PlanRequest(), started=100.0, seconds=seconds, **fields)


def test_what_is_left_is_what_has_not_passed(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 130.0)
    assert limit_of().left() == 30.0
    # A twentieth of sixty seconds is for planning, which began two seconds ago.
    assert limit_of().planning_left(32.0) == 1.0
    assert limit_of().planning_left(60.0) == 0.0


def test_a_plan_is_chosen_for_all_ranks(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "choose_plan", lambda *given, **how: calls.append((given, how)))
    own, other = PlanRequest(), PlanRequest(device="cpu")
    limit = TimeLimit(planning=own, started=0.0, seconds=1.0, world_size=4)
    limit.choose_plan("task")
    limit.choose_plan("task", seconds=3.0, is_raced=False, planning=other)
    assert calls == [
        (("task", own), {"world_size": 4, "seconds": None, "is_raced": True}),
        (("task", other), {"world_size": 4, "seconds": 3.0, "is_raced": False}),
    ]


@pytest.mark.parametrize(
    ("seconds", "timed", "late"), [(60, 0.3, 0.6), (3600, 3, 36), (6, 0.03, 0.2)]
)
def test_timings_take_a_small_share_of_the_time(monkeypatch, seconds, timed, late):
    asked = []
    monkeypatch.setattr(module, "share_of_rank", lambda *given: given[:2])
    monkeypatch.setattr(module, "measure_step_time", lambda *given, **how: asked.append(how))
    limit_of(seconds).measure_step(None, Plan.baseline("cpu"))
    assert asked[0].pop("is_later")
    assert callable(asked[0].pop("on_limit"))
    assert asked == [pytest.approx({"seconds": timed, "most_seconds": late})]


def test_on_a_device_that_is_not_here_nothing_has_passed_and_steps_are_predicted(monkeypatch):
    limit = TimeLimit(planning=PlanRequest(on="H100"), started=0.0, seconds=60.0)
    predicted = SimpleNamespace(step=0.002, startup=0.0)
    monkeypatch.setattr(module, "absent_step", lambda task, plan, request: predicted)
    assert limit.left() == 60.0
    assert limit.measure_step(None, Plan(device="cuda")).step == 0.002


def test_any_processes_may_train_unless_something_is_said():
    assert limit_of().check(None, None) is None


def test_one_process_looks_at_its_steps_again_by_the_time_that_is_left(monkeypatch):
    monkeypatch.setattr(TimeLimit, "left", lambda self: 45.0)
    schedule = SimpleNamespace(num_steps=100, training=50.0, kept=4.0, evaluation=1.0)
    network = NetworkCosts(name="net", step=0.5)
    assert limit_of(world_size=2).length_rule(schedule, network) is None
    rule = limit_of().length_rule(schedule, network)
    assert (rule.after_steps, rule.after_seconds) == (10, 5.0)
    # Of the 45 s, 3 are kept in reserve and 10 for what takes twice the time as well.
    assert rule.num_steps(10, 1.0) == 10 + 45 - 3 - 10
    # At half of them, half of the evaluations are left to do, in 1 s at this pace.
    assert rule.later(50, 100, 0.5) == 50 + int((45 - 3 - 4.5) / 0.5)
    assert rule.later(60, 100, 0.5) == 100
