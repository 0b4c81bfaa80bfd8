"""The folder of a run: made once, never half written, and refused when it is another's."""

import errno
import json
import math
import os
import re
from pathlib import Path

import pytest

from volano.errors import CheckpointError, RunError, UsageError
from volano.record import files
from volano.record.run_folder import PREPARED, ReadFolder, RunFolder


@pytest.fixture
def folder(tmp_path):
    made = RunFolder.reserve(tmp_path / "run", "task")
    made.make()
    yield made
    made.release()


def test_nothing_is_written_before_it_is_made(tmp_path):
    folder = RunFolder.reserve(tmp_path / "run", "task")
    assert not folder.path.exists()
    folder.make()
    assert RunFolder.open(folder.path).read_json("run.json") == {
        "schema_version": 1,
        "status": "starting",
    }
    folder.release()


def test_what_is_left_of_one_that_never_began_is_in_nobodys_way(folder):
    folder.append("metrics.jsonl", {"step": 1})
    folder.release()
    again = RunFolder.reserve(folder.path, "task")
    again.make()
    assert again.read_lines("metrics.jsonl") == []
    again.release()


@pytest.mark.parametrize("leaves", ["checkpoints/step-00000001", "mine.txt"])
def test_what_would_be_lost_is_not_overwritten(folder, leaves):
    if leaves == "mine.txt":
        (folder.path / "run.json").unlink()
    (folder.path / leaves).mkdir()
    more = "" if leaves == "mine.txt" else ", or continue this run: volano resume"
    message = f"start in a folder of its own; got .*which exists. Name another with `out`{more}"
    with pytest.raises(UsageError, match=message):
        RunFolder.reserve(folder.path, "task")


def test_one_that_is_prepared_is_not_started_over(folder):
    folder.update_run(status=PREPARED)
    with pytest.raises(UsageError, match="which exists"):
        RunFolder.reserve(folder.path, "task")


def test_two_runs_without_a_place_get_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (RunFolder.reserve(None, "task") for _ in range(2))
    first.make()
    assert RunFolder.reserve(None, "task").path != first.path
    assert first.path.parent == second.path.parent
    first.release()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/b", "a-b"), ("../up", "up"), ("/abs", "abs"), ("n" + chr(0) + "ul" + chr(10), "n-ul"),
        ("", "run"), (".", "run"), (chr(0xDCFF), "run"), ("<lambda>", "lambda"),
        ("x" * 400, "x" * 50), ("Grün 2", "Grün 2"),
    ],
)  # fmt: skip
def test_whatever_a_task_is_called_its_folder_lies_among_runs(tmp_path, monkeypatch, name, found):
    monkeypatch.chdir(tmp_path)
    path = RunFolder.reserve(None, name).path
    assert path.parent == Path("runs")
    assert re.fullmatch(re.escape(found) + r"-[0-9]{8}-[0-9]{6}", path.name)


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_planned(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    names = ("file/run", "loop/run", "loop", "x" * 400, "n" + chr(0) + "ul", chr(0xD800))
    for out in map(tmp_path.joinpath, names):
        with pytest.raises(UsageError, match=r"possible to make the run's folder; got .* `out`"):
            RunFolder.reserve(out, "task")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UsageError, match=f"got .*new: {tmp_path} cannot be written to"):
        RunFolder.reserve(tmp_path / "deep" / "new", "task")


def test_json_has_no_nan(folder):
    folder.write_json("a.json", {"x": math.nan, "y": [math.inf, 1.5]})
    assert json.loads((folder.path / "a.json").read_text()) == {"x": None, "y": [None, 1.5]}


def test_half_a_line_of_a_killed_process_takes_no_other_with_it(folder):
    (folder.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"ste')
    folder.append("metrics.jsonl", {"step": 2})
    assert [record["step"] for record in folder.read_lines("metrics.jsonl")] == [1, 2]


def test_lines_after_a_step_are_dropped_and_those_without_one_stay(folder):
    for record in ({"step": 1}, {"step": 2}, {"note": 1}, {"step": 3}):
        folder.append("metrics.jsonl", record)
    folder.keep_until("metrics.jsonl", 2)
    assert folder.read_lines("metrics.jsonl") == [{"step": 1}, {"step": 2}, {"note": 1}]


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, UsageError, "A run's folder must hold run.json; got .*that train printed"),
        ("{", CheckpointError, "run.json of a run's folder must hold JSON"),
        ("[" * 100_000, CheckpointError, "run.json of a run's folder must hold JSON"),
        ("[]", CheckpointError, "run.json of a run's folder must hold a JSON object; got list"),
        ('{"id": "3fa4"}', UsageError, "must be Volano's; got .*states no schema_version.*printed"),
        ('{"schema_version": 2}', CheckpointError, "reads run folders of schema version 1; got 2"),
    ],
)
def test_what_is_no_run_is_not_opened(tmp_path, content, error, words):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(error, match=words):
        RunFolder.open(tmp_path)


def test_another_rank_writes_corrupt_examples_alone(folder):
    other = ReadFolder(folder.path)
    with other.held():
        other.append("metrics.jsonl", {"step": 1})
        other.append("quarantine.jsonl", {"index": 3})
        other.update_run(status="failed")
        other.keep_until("quarantine.jsonl", 0)
    assert other.read_lines("metrics.jsonl") == []
    assert other.read_lines("quarantine.jsonl") == [{"index": 3}]
    assert folder.read_json("run.json")["status"] == "starting"


@pytest.mark.parametrize(
    ("name", "value"),
    [("source", []), ("metrics", 3), ("num_steps", "9"), ("revision", {"step": "4"})],
)
def test_what_it_holds_has_its_type(folder, name, value):
    folder.update_run(**{name: value})
    rule = rf"run\.json of a run's folder must hold {name}(\.step)? as"
    with pytest.raises(CheckpointError, match=rule):
        RunFolder.open(folder.path)
    folder.update_run(**{name: None})
    RunFolder.open(folder.path)


def test_what_its_files_state_and_cannot_be_is_said(tmp_path):
    rule = "files of a run must be as Volano wrote them; got .*KeyError: 'tune'"
    with pytest.raises(CheckpointError, match=rule), RunFolder(tmp_path).as_written():
        raise KeyError("tune")
    with pytest.raises(UsageError, match="a rule"), RunFolder(tmp_path).as_written():
        raise UsageError("a rule")
    with pytest.raises(RuntimeError), RunFolder(tmp_path).as_written(lambda _: True):
        raise RuntimeError("no memory is left")


def test_a_folder_that_was_removed_is_put_back(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.write_json("task.json", {"name": "mine"})
    assert not folder.put_back()
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert folder.put_back()
    assert folder.read_json("task.json") == {"name": "mine"}
    assert folder.read_json("run.json")["status"] == "starting"
    with (
        pytest.raises(UsageError, match="Only one process at a time"),
        RunFolder(folder.path).held(),
    ):
        pass
    (tmp_path / "run").rename(tmp_path / "again")
    (tmp_path / "run").write_text("in its way")
    assert not folder.put_back()
    with pytest.raises(RunError, match="must be writable; got .*run.json: Not a directory"):
        folder.write_json("run.json", {})
    folder.release()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Make room on the disk"),
        (errno.EROFS, "Take a place that can be written to"),
        (5, None),
    ],
)
def test_what_helps_if_it_cannot_be_written(folder, monkeypatch, number, remedy):
    def fail(path, content):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "write_bytes", fail)
    with pytest.raises(RunError, match=os.strerror(number)) as raised:
        folder.write_json("run.json", {})
    assert raised.value.remedy == remedy
