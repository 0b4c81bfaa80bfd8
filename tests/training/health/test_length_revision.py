"""A run whose number of steps is revised, once, and resumed as the same experiment."""

import pytest

import volano
from conftest import Quiet, StopAt, assert_same_runs
from training.tasks import full_task
from volano import Plan
from volano.errors import CheckpointError
from volano.training import LengthRule, RunFolder, run_task
from volano.training.health.length_revision import LengthRevision


def run(task, path, length, observer=None):
    folder = RunFolder.reserve(path, "run")
    folder.make()
    source = {"kind": "python"}
    return run_task(task, Plan.baseline(), folder, observer=observer or Quiet(), length=length,
                    source=source)  # fmt: skip


def rule(num_steps, asked=None, after_seconds=1e9):
    def decide(step, seconds):
        if asked is not None:
            asked.append((step, seconds))
        return num_steps

    return LengthRule(after_steps=5, after_seconds=after_seconds, num_steps=decide)


@pytest.mark.parametrize("num_steps", [9, 32, 70])
def test_it_is_decided_once_and_recorded(make_task, tmp_path, num_steps):
    asked = []
    task = full_task(make_task)
    ended = run(task, tmp_path / "run", rule(num_steps, asked))
    record = RunFolder(ended.path).read_json("run.json")
    assert ended.status == "finished"
    assert [step for step, _ in asked] == [5]  # no second has passed before
    assert asked[-1][1] > 0.0
    assert (record["step"], record["num_steps"]) == (num_steps, num_steps)
    if num_steps == task.num_steps:
        assert "revision" not in record
    else:
        assert record["revision"]["step"] == 5
        assert record["revision"]["begun_with"] == task.num_steps == 32
        assert any(f"{num_steps} steps instead of 32" in notice for notice in ended.notices)
    rates = [
        line["lr"] for line in RunFolder(ended.path).read_lines("metrics.jsonl") if "lr" in line
    ]
    assert rates[-1] == pytest.approx(0.0, abs=1e-3)  # the schedule ends with the run


@pytest.mark.parametrize("num_steps", [20, 50])
@pytest.mark.parametrize("stop_at", [3, 5, 12])
def test_a_resumed_run_is_the_same_experiment(make_task, quiet, tmp_path, num_steps, stop_at):
    task = full_task(make_task)
    whole = run(task, tmp_path / "whole", rule(num_steps))
    parts = run(task, tmp_path / "parts", rule(num_steps), StopAt(stop_at))
    assert parts.status == "stopped"
    if stop_at < 5:  # killed after it was recorded, its last checkpoint lies before
        revision = RunFolder(whole.path).read_json("run.json")["revision"]
        RunFolder(parts.path).update_run(revision=revision)
    resumed = volano.resume(parts.path, task=task, observer=quiet)
    assert resumed.status == "finished"
    record = RunFolder(resumed.path).read_json("run.json")
    assert (record["step"], record["num_steps"]) == (num_steps, num_steps)
    assert_same_runs(resumed.path, whole.path)


def test_a_run_that_has_no_time_ends_before_its_look(make_task, tmp_path):
    """The rule of which every answer is within the look says so at the first step that takes
    half of the seconds to it."""
    asked = []
    ended = run(full_task(make_task), tmp_path / "run", rule(3, asked, after_seconds=1e-9))
    record = RunFolder(ended.path).read_json("run.json")
    assert (record["step"], record["revision"]["step"]) == (3, 2)
    assert [step for step, _ in asked][-1] == 2


def test_a_recorded_revision_says_its_step_and_length(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(CheckpointError, match="must be as Volano wrote them; got .*'num_steps'"):
        LengthRevision(None, folder, Quiet(), None, {"step": 4})
