"""Minutes of a task become steps once, and a run keeps them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import volano
from volano.errors import TaskError
from volano.planner import PlanRequest
from volano.running.minutes import (
    fit_minutes,
    is_in_minutes,
    steps_in,
    with_probe_steps,
    with_steps_of,
)
from volano.training import RunFolder


def test_steps_and_their_evaluations_fill_the_time():
    assert steps_in(10.0, step=0.1, evaluation=0.0, interval=5) == 100
    # One at the end, and one after each ten.
    assert steps_in(21.0, step=0.1, evaluation=1.0, interval=10) == 100
    assert steps_in(-3.0, step=0.1, evaluation=1.0, interval=10) == 1


@given(st.floats(0.1, 1e4), st.floats(1e-4, 10), st.floats(0, 60), st.integers(1, 1000))
def test_they_never_take_longer(seconds, step, evaluation, interval):
    num = steps_in(seconds, step=step, evaluation=evaluation, interval=interval)
    taken = num * step + (num // interval + 1) * evaluation
    assert num == 1 or taken <= seconds * (1 + 1e-9)


def test_a_task_of_steps_is_left_as_it_is(make_task):
    task, request = make_task(), PlanRequest()
    assert with_probe_steps(task, request) == (task, request)
    assert not is_in_minutes(task)


def test_minutes_are_no_steps_before_they_are_resolved(make_task):
    task = make_task(duration="10min")
    with pytest.raises(TaskError, match="resolved into steps"):
        _ = task.num_steps
    probe, request = with_probe_steps(task, PlanRequest())
    assert (probe.num_steps, request.seconds) == (1000, 600.0)


def test_the_time_counts_from_the_start_of_the_call(make_task):
    task = make_task(duration="0.1min")
    plan = PlanRequest(plan=volano.Plan.baseline("cpu"))
    late, chosen = fit_minutes(task, plan, started=time.perf_counter() - 100)
    assert late.num_steps == 1
    assert chosen.reasons[-1].endswith("0.1 min")


def test_a_run_keeps_the_steps_and_is_resumed_with_them(make_task, tmp_path, quiet):
    task = make_task(duration="0.05min")
    run = volano.train(
        task, out=tmp_path / "run", plan=volano.Plan.baseline("cpu"), observer=quiet
    )  # fmt: skip
    folder = RunFolder.open(run.path)
    num_steps = folder.read_json("run.json")["num_steps"]
    assert folder.read_json("task.json")["duration"] == f"{num_steps}st"
    assert with_steps_of(task, folder).num_steps == num_steps
    assert any(notice.startswith(f"{num_steps:,} steps: ") for notice in run.notices)
