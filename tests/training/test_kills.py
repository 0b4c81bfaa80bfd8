"""A run that is killed at any moment, as often as may be, ends bitwise as the run that never was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import assert_same_runs

SCRIPT = Path(__file__).with_name("killed.py")


def kill(root, num_kills, *, seed=0, workers=0, timeout=120):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), *sys.path]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(root), str(num_kills), str(seed), str(workers)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "trouble" not in report["ends"], done.stderr
    return report


def assert_as_if_nothing_had_been(report):
    whole = Path(report["whole"])
    figures = json.loads((whole / "run.json").read_text())["metrics"]
    weights = load_file(whole / "model.safetensors")
    for path in map(Path, report["runs"]):
        assert_same_runs(path, whole)  # metrics.jsonl, and all that a checkpoint holds
        record = json.loads((path / "run.json").read_text())
        assert (record["status"], record["metrics"]) == ("finished", figures)
        assert record["safety"]["save_every"] == "3st"
        for name, tensor in load_file(path / "model.safetensors").items():
            assert torch.equal(tensor, weights[name])
        left = {file.name for file in path.iterdir()}
        files = {"run.json", "task.json", "plan.json", "metrics.jsonl", "model.safetensors", "report.html"}
        assert left == {*files, "checkpoints"}
        assert len(list((path / "checkpoints").iterdir())) == 2


def test_killed_five_times(tmp_path):
    report = kill(tmp_path, 5)
    assert sum(count for end, count in report["ends"].items() if end != "finished") == 5
    assert_as_if_nothing_had_been(report)


@pytest.mark.slow
@pytest.mark.parametrize(("num_kills", "workers"), [(105, 0), (21, 1)])
def test_killed_a_hundred_times(tmp_path, num_kills, workers):
    report = kill(tmp_path, num_kills, seed=1, workers=workers, timeout=1500)
    assert set(report["ends"]) == {"file", "time", "evaluation", "step", "term", "finished"}
    assert sum(count for end, count in report["ends"].items() if end != "finished") >= num_kills
    assert_as_if_nothing_had_been(report)
