"""A run's folder as a report reads it: whatever is there, and in words what is not."""

import json

import pytest

from report.folders import make_run
from volano.errors import UsageError
from volano.record.read_run import read_run


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"A run's folder must hold run\.json; got .*Name the folder that train printed",
    ):
        read_run(tmp_path)


def test_lines_are_told_apart_by_what_they_hold(tmp_path):
    (tmp_path / "run.json").write_text('{"schema_version": 1, "status": "running"}')
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "valid_loss": 1.0}, {"step": 2}, [1]]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = read_run(tmp_path)
    assert record.logs == ({"step": 1, "loss": 2.0},)
    assert record.evaluations == ({"step": 2, "valid_loss": 1.0},)
    assert (record.kind, record.status, record.metrics) == ("python", "running", {})
    assert record.missing == (
        "task.json is not there",
        "plan.json is not there",
        "metrics.jsonl: 1 of 4 lines are damaged and left out",
    )


def test_what_a_later_version_wrote_is_said(tmp_path):
    (tmp_path / "run.json").write_text(
        '{"schema_version": 9, "source": [], "status": null, "metrics": 3}'
    )
    record = read_run(tmp_path)
    assert record.missing[0] == "run.json is of schema version 9; this page was made for version 1"
    assert (record.kind, record.status, record.metrics) == ("python", "unknown", {})


def test_damaged_lines_are_left_out_and_counted(tmp_path):
    run = make_run(tmp_path / "run", "python")
    whole = read_run(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 401, "lo')
    record = read_run(run)
    assert record.logs == whole.logs
    assert record.missing == ("metrics.jsonl: 1 of 45 lines are damaged and left out",)
