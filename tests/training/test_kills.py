"""A run that is killed at any moment, as often as may be, ends bitwise as the run that never
was."""

import json

import pytest
import torch
from safetensors.torch import load_file

from conftest import assert_same_runs
from training.killed import Report, kill


def assert_as_if_nothing_had_been(report: Report) -> None:
    whole = report.whole
    figures = json.loads((whole / "run.json").read_text())["metrics"]
    weights = load_file(whole / "model.safetensors")
    for path in report.runs:
        assert_same_runs(path, whole)  # metrics.jsonl, and all that a checkpoint holds
        record = json.loads((path / "run.json").read_text())
        assert (record["status"], record["metrics"]) == ("finished", figures)
        assert record["safety"]["save_every"] == "3st"
        for name, tensor in load_file(path / "model.safetensors").items():
            assert torch.equal(tensor, weights[name])
        left = {file.name for file in path.iterdir()}
        files = {
            "run.json",
            "task.json",
            "plan.json",
            "metrics.jsonl",
            "model.safetensors",
            "report.html",
        }
        assert left == {*files, "checkpoints"}
        assert len(list((path / "checkpoints").iterdir())) == 2


def num_kills(report: Report) -> int:
    return report.ends.total() - report.ends["finished"]


def test_killed_five_times(tmp_path):
    report = kill(tmp_path, 5)
    assert num_kills(report) == 5
    assert_as_if_nothing_had_been(report)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers", "ranks"), [(105, 0, 1), (21, 1, 1), (14, 0, 2)])
def test_killed_a_hundred_times(tmp_path, number, workers, ranks):
    report = kill(tmp_path, number, seed=1, workers=workers, ranks=ranks)
    assert set(report.ends) == {"file", "time", "evaluation", "step", "term", "finished"}
    assert num_kills(report) >= number
    assert_as_if_nothing_had_been(report)
