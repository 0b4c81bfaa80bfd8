"""A run whose number of steps is revised, and resumed as the same experiment."""

import pytest

import volano
from conftest import Quiet, StopAt, assert_same_runs
from training.tasks import full_task
from volano import Plan
from volano.errors import CheckpointError
from volano.record.run_folder import revisions_of
from volano.training import LengthRule, RunFolder, run_task
from volano.training.health.length_revision import LengthRevision


def run(task, path, length, observer=None):
    folder = RunFolder.reserve(path, "run")
    folder.make()
    source = {"kind": "python"}
    return run_task(task, Plan.baseline(), folder, observer=observer or Quiet(), length=length,
                    source=source)  # fmt: skip


def rule(num_steps, asked=None, after_seconds=1e9, **later):
    def decide(step, seconds):
        if asked is not None:
            asked.append((step, seconds))
        return num_steps

    return LengthRule(after_steps=5, after_seconds=after_seconds, num_steps=decide,
                      **later)  # fmt: skip


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
        assert "revisions" not in record
    else:
        (revision,) = record["revisions"]
        assert (revision["step"], revision["begun_with"]) == (5, task.num_steps)
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
        revisions = RunFolder(whole.path).read_json("run.json")["revisions"]
        RunFolder(parts.path).update_run(revisions=revisions)
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
    assert (record["step"], record["revisions"][0]["step"]) == (3, 2)
    assert [step for step, _ in asked][-1] == 2


def test_a_recorded_revision_says_its_step_and_length(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(CheckpointError, match="must be as Volano wrote them; got .*'num_steps'"):
        LengthRevision(None, folder, Quiet(), None, {"revisions": [{"step": 4}]})


def shortens_at(*steps):
    """Shortens by two steps at each of these."""
    return lambda step, before, _: before - 2 if step in steps else before


def test_it_is_shortened_at_later_looks_and_resumed_so(make_task, quiet, tmp_path):
    task = full_task(make_task)
    given = rule(30, again_seconds=0.0, later=shortens_at(9, 10, 28))
    whole = run(task, tmp_path / "whole", given)
    record = RunFolder(whole.path).read_json("run.json")
    taken = [tuple(each[key] for key in ("step", "num_steps")) for each in record["revisions"]]
    # The last one would be over before the step that has been made.
    assert taken == [(5, 30), (9, 28), (10, 26)]
    assert record["step"] == record["num_steps"] == 26
    assert whole.status == "finished"
    parts = run(task, tmp_path / "parts", given, StopAt(12))
    assert parts.status == "stopped"
    resumed = volano.resume(parts.path, task=task, observer=quiet)
    assert_same_runs(resumed.path, whole.path)


@pytest.mark.parametrize(("num_steps", "first"), [(32, 6), (60, 8), (200, 10)])
def test_one_slow_step_is_no_reason_to_look_again(make_task, tmp_path, num_steps, first):
    looked_at = []

    def later(step, before, _):
        looked_at.append(step)
        return min(before, 32)

    given = rule(num_steps, again_seconds=0.0, later=later)
    run(full_task(make_task), tmp_path / "run", given)
    assert looked_at[0] == first


def test_it_is_not_looked_at_again_before_its_seconds(make_task, tmp_path):
    given = rule(32, again_seconds=1e9, later=shortens_at(*range(32)))
    ended = run(full_task(make_task), tmp_path / "run", given)
    assert "revisions" not in RunFolder(ended.path).read_json("run.json")


def test_the_one_revision_of_an_earlier_version_is_read():
    earlier = {"step": 4, "num_steps": 9, "begun_with": 20}
    assert revisions_of({"revision": earlier}) == [earlier]
    assert revisions_of({}) == revisions_of({"revision": None}) == []
