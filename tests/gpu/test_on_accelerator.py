"""What the stand-in shows, on an accelerator of this machine: `pytest -m gpu`."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SEEN

pytestmark = pytest.mark.gpu
CHILD = Path(__file__).parents[1] / "device" / "on_standin.py"
CHECK = Path(__file__).parents[2] / "benchmarks" / "gpu" / "gpu_check.py"
# First what must be said before a process's first product of matrices.
NAMES = (
    "deterministic", "resident", "ring", "worker", "micro", "default", "bf16", "steady", "resume",
)  # fmt: skip


def environment() -> dict[str, str]:
    """That of this process, with its accelerator."""
    found = {name: value for name, value in os.environ.items() if name not in SEEN}
    return found | {name: value for name, value in SEEN.items() if value is not None}


@functools.cache
def device() -> str:
    """The accelerator's name; skips the test if there is none."""
    name = ""
    if any(getattr(torch.version, name, None) for name in ("cuda", "hip", "xpu")):
        code = "import torch; print(torch.accelerator.current_accelerator() or '')"
        name = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=environment(),
        ).stdout.strip()  # fmt: skip
    if not name:
        pytest.skip("needs an accelerator")
    return f"{name}:0"


@functools.cache
def run_child() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(CHILD), *NAMES], capture_output=True, text=True, timeout=900,
        check=False, env={**environment(), "VOLANO_TEST_DEVICE": device()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def on_accelerator(name: str) -> dict[str, Any]:
    result = run_child()[name]
    assert "traceback" not in result, result["traceback"]
    return result


@pytest.mark.parametrize("name", ["resident", "ring", "worker", "micro", "default", "bf16"])
def test_nearly_the_same_weights_as_on_the_cpu(name):
    result = on_accelerator(name)
    assert result["devices"] == [device()]
    assert result["difference"] < (0.1 if name == "bf16" else 1e-2)
    assert abs(result["accuracy"]) <= 0.05


def test_a_stopped_run_goes_on_from_the_same_state():
    result = on_accelerator("resume")
    assert result["status"] == "finished"
    # Sums in another order from run to run: near, and not bitwise as on the CPU.
    assert result["difference"] < 1e-2


def test_a_deterministic_plan_gives_the_same_bits():
    found = on_accelerator("deterministic")
    assert found["differences"] == [0.0, 0.0]
    assert found["seen"] == [[True, ":4096:8"]]
    assert "put_" in found["error"]


def test_the_check_of_accelerators_runs_at_a_small_size(tmp_path):
    command = [sys.executable, str(CHECK), "--small", "--device", device(), "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "machine", "arithmetic", "memory", "resume"],
        capture_output=True, text=True, timeout=900, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ERROR" not in done.stdout
