"""The check of an accelerator, tried on the CPU at a small size."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import gpu_check
import gpu_knobs
from gpu_results import AIMS, Results, read_results, summary
from gpu_stages import STAGES, Stage
from gpu_tasks import GpuTasks
from volano.device import Device

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu" / "gpu_check.py"


def run_check(out, *stages):
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--out", str(out)]
    done = subprocess.run(
        [*command, *stages], capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return read_results(out / "results.jsonl"), done.stdout


@pytest.fixture
def here(monkeypatch):
    """Stages run in this process, by the command that would start theirs."""

    def run(command, *, env, **_):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command[1:])
            patch.setenv("XDG_CACHE_HOME", env["XDG_CACHE_HOME"])
            return SimpleNamespace(returncode=gpu_check.main())

    monkeypatch.setattr(gpu_check.subprocess, "run", run)


def figures(results, stage):
    return {one["check"]: one for one in results if one["stage"] == stage}


def test_a_stage_writes_its_results_and_a_table(here, tmp_path, capsys, monkeypatch):
    arguments = ["gpu_check.py", "--device", "cpu", "--small", "--out", str(tmp_path), "resume"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert gpu_check.main() == 0
    results, text = read_results(tmp_path / "results.jsonl"), capsys.readouterr().out
    assert not [one for one in results if isinstance(one.get("error"), str)]
    assert {one["code"] for one in results if one["check"] == "stage ended"} == {0}
    # On the CPU a stopped run goes on bitwise.
    assert figures(results, "resume")["gpt2"]["stopped_and_resumed"] == 0.0
    assert "not measured" in text
    assert len([line for line in text.splitlines() if line[0] != "{"]) == len(AIMS)


@pytest.mark.slow
def test_every_stage_runs_at_a_small_size(tmp_path):
    names = [name for name in STAGES if name != "applications"]
    results, _ = run_check(tmp_path, *names)
    assert not [one for one in results if isinstance(one.get("error"), str)]
    assert figures(results, "memory")["gpt2 bf16"]["ratio"] == pytest.approx(1.0, abs=0.1)


def test_what_each_knob_saves_stands_beside_what_is_expected(tmp_path):
    results = Results(tmp_path / "results.jsonl", "knobs", Device("cpu"))
    stage = Stage(device=Device("cpu"), tasks=GpuTasks(small=True), results=results)
    task = stage.tasks.perceptron(steps=4)
    base = gpu_knobs._measured(stage, task, "plain", stage.plan, None)
    gpu_knobs._expected(stage, task, stage.plan)
    gpu_knobs._measured(stage, task, "fused", stage.fused, base)
    plain, expected, fused = read_results(tmp_path / "results.jsonl")
    assert plain["saves"] is None
    assert fused["saves"] == pytest.approx(1.0 - fused["step"] / plain["step"])
    assert expected["compiled"] == 0.2
    assert expected["convolutions_benchmarked"] == 0.0


def test_what_goes_wrong_is_a_result(tmp_path):
    results = Results(tmp_path / "results.jsonl", "speed", Device("cpu"))
    with results.check("a fault"):
        raise ValueError("no")
    results.emit("gpt2 beside the expert", planned_over_expert=0.9)
    found = read_results(tmp_path / "results.jsonl")
    assert found[0]["error"] == "ValueError: no"
    lines = summary(found)
    assert any("planned_over_expert" in line and line.endswith("MISSED") for line in lines)
    assert lines[-1] == "ERROR speed, a fault: ValueError: no"
    assert json.loads((tmp_path / "results.jsonl").read_text().splitlines()[1])["stage"] == "speed"


def test_every_aim_is_of_a_stage():
    assert {stage for stage, _ in AIMS} <= set(STAGES)
