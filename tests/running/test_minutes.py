"""Minutes of a task become steps once, and a run keeps them."""

import time

import pytest

import volano
from volano.errors import CheckpointError, TaskError
from volano.planner import PlanRequest
from volano.record.run_folder import revisions_of
from volano.running import minutes
from volano.running.minutes import fit_minutes, is_in_minutes, with_probe_steps, with_steps_of
from volano.training import RunFolder


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
    late, chosen, length = fit_minutes(task, plan, started=time.perf_counter() - 100)
    assert late.num_steps == 6  # with which a run begins that looks again
    assert any(reason.endswith("0.1 min") for reason in chosen.reasons)
    assert "too short a time" in chosen.reasons[-1]
    assert length is not None
    assert length.num_steps(2, 0.01) == 3
    late, _, length = fit_minutes(task, plan, started=time.perf_counter() - 100, world_size=2)
    assert (late.num_steps, length) == (1, None)


def test_evaluations_at_an_interval_of_the_persons_own_take_their_time(make_task, monkeypatch):
    found = []
    monkeypatch.setattr(
        minutes, "fit_time", lambda limit, sizes, **wishes: found.append(sizes) or 1 / 0
    )
    for task, interval in (
        (make_task(duration="1min", evaluate_every="7st"), 7),
        (make_task(duration="1min", valid=None), None),
    ):
        with pytest.raises(ZeroDivisionError):
            fit_minutes(task, PlanRequest(), started=0.0)
        assert found[-1][0].evaluation_interval == interval


def test_a_run_keeps_the_steps_and_is_resumed_with_them(make_task, tmp_path, quiet):
    task = make_task(duration="0.05min")
    run = volano.train(
        task, out=tmp_path / "run", plan=volano.Plan.baseline("cpu"), observer=quiet
    )  # fmt: skip
    folder = RunFolder.open(run.path)
    record = folder.read_json("run.json")
    revisions = revisions_of(record)
    num_steps = revisions[0]["begun_with"] if revisions else record["num_steps"]
    assert record["step"] == record["num_steps"]
    assert folder.read_json("task.json")["duration"] == f"{num_steps}st"
    assert with_steps_of(task, folder).num_steps == num_steps
    assert any(notice.startswith(f"{num_steps:,} steps: ") for notice in run.notices)


@pytest.mark.parametrize("facts", [{}, {"num_steps": 0}])
def test_a_folder_without_its_steps_is_damaged(make_task, tmp_path, facts):
    folder = RunFolder(tmp_path)
    folder.update_run(**facts)
    with pytest.raises((CheckpointError, TaskError)):
        with_steps_of(make_task(duration="1min"), folder)
