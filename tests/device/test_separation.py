"""Host and device apart: training on a device that is not the CPU and refuses host tensors."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device.standin import can_be_installed

pytestmark = pytest.mark.skipif(
    not can_be_installed(), reason="this torch takes no device that is written in Python"
)
CHILD = Path(__file__).with_name("on_standin.py")


# Of all tests, run by one child: starting it takes longer than any of them. First those in which
# what live tensors take is counted.
SAVINGS = ("savings:offload=all", "savings:recompute=blocks,offload=activations")
NAMES = (
    *SAVINGS,
    "resident",
    "ring",
    "worker",
    "micro",
    "default",
    "bf16",
    "fp16",
    "steady",
    "resume",
    "deterministic",
    "chosen",
    "doctor",
    "number",
    "steady:micro_batch=24",
    "steady:optimizer=fused",
    "steady:precision=bf16",
    "steady:precision=fp16,optimizer=fused",
    "steady:recompute=blocks",
    "cached:feed=ring",
    "cached:feed=resident,micro_batch=24",
    "pack:loop",
    "pack:lowered",
    "broken member",
    "ranks",
    "without float64",
)


@functools.cache
def run_child(*names: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", str(CHILD), *names]
    child = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads(child.stdout.splitlines()[-1])


def on_standin(name: str) -> dict[str, Any]:
    result = run_child(*NAMES)[name]
    assert "traceback" not in result, result["traceback"]
    return result


@pytest.mark.parametrize("name", ["resident", "ring", "worker", "micro"])
def test_the_same_weights_as_on_the_cpu(name):
    result = on_standin(name)
    assert result["devices"] == ["standin:0"]
    # Equal operations, equal kernels: what differs is micro-batches' sums and the average's lerp,
    # both rounding.
    assert result["difference"] < 1e-5


@pytest.mark.parametrize("name", ["default", "bf16", "fp16"])
def test_other_arithmetic_learns_as_well(name):
    result = on_standin(name)
    assert result["difference"] < {"default": 1e-4, "bf16": 0.1, "fp16": 0.1}[name]
    assert abs(result["accuracy"]) <= 0.05


def test_the_steady_loop_does_not_wait_for_the_device():
    counts = on_standin("steady")["counts"]
    assert len(counts) == 16
    for between_two_lines in counts[2:]:
        # One read for a logged line, evaluation's one read, and nothing crosses but a block of
        # indices now and then.
        assert between_two_lines["reads"] == 0
        assert between_two_lines["device_to_host"] <= 2
        assert between_two_lines["synchronize"] == 0
    assert sum(line["host_to_device"] for line in counts[2:]) <= 8


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("steady:")])
def test_no_plan_waits_for_the_device(name):
    counts = on_standin(name)["counts"]
    assert len(counts) == 16
    for between_two_lines in counts[2:]:
        assert between_two_lines["reads"] == 0
        assert between_two_lines["device_to_host"] <= 2
        assert between_two_lines["synchronize"] == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("cached:")])
def test_taking_up_what_a_frozen_prefix_computed_does_not_wait_for_the_device(name):
    found = on_standin(name)
    assert found["difference"] < 1e-5
    assert found["cached"]["notices"] == []
    plain, kept = (found[prefix]["counts"] for prefix in ("computed", "cached"))
    assert len(kept) == 14
    for before, counts in zip(plain, kept, strict=True):
        assert counts["reads"] == counts["synchronize"] == 0
        assert counts["blocking_copies"] == before["blocking_copies"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("pack:")])
def test_the_steps_of_a_pack_do_not_wait_for_the_device(name):
    found = on_standin(name)
    assert found["difference"] < 1e-5
    counts = found["counts"]
    assert counts["reads"] == counts["synchronize"] == 0
    assert counts["device_to_host"] <= 1  # the losses of all of them


def test_a_member_whose_gradient_is_no_number_is_known_on_the_device():
    losses = on_standin("broken member")["losses"]
    assert losses["0"] > 0
    assert losses["1"] != losses["1"]


def test_a_device_without_float64_trains_and_its_plans_are_checked():
    found = on_standin("without float64")
    assert found["run"] < 1e-4
    assert found["passed"]
    assert "float64 fails with TypeError: the device has no float64" in found["reason"]


def test_the_steps_of_ranks_do_not_wait_for_the_device():
    found = on_standin("ranks")
    assert found["steps"] == 16
    counts = found["counts"]
    assert counts["reads"] == counts["synchronize"] == counts["device_to_host"] == 0


def test_a_number_that_ranks_add_up_is_not_copied():
    found = on_standin("number")
    assert found["value"] == 3.0
    assert not any(found["counts"].values())


def test_batches_travel_without_blocking():
    counts = on_standin("ring")["counts"]
    # Each batch is two tensors, pinned and copied ahead; what blocks is the read of a logged line.
    assert sum(line["host_to_device"] for line in counts[2:]) >= 2 * len(counts[2:])
    assert sum(line["blocking_copies"] for line in counts[2:]) <= len(counts[2:]) + 2
    assert all(line["reads"] == 0 and line["synchronize"] == 0 for line in counts[2:])


def test_a_stopped_run_goes_on_bitwise():
    assert on_standin("resume") == {"difference": 0.0, "status": "finished"}


def test_a_deterministic_plan_holds_for_all_its_steps_and_for_no_others():
    found = on_standin("deterministic")
    assert found["differences"] == [0.0, 0.0]
    assert found["seen"] == [[True, ":4096:8"]]
    assert not found["after"]
    assert found["recorded"] is True
    assert found["error"] == found["reason"]
    assert "got put_, which has none" in found["error"]


def test_the_accelerator_is_chosen_by_itself():
    assert on_standin("chosen") == {"device": "standin:0", "feed": "resident"}


def test_the_doctor_sees_it():
    result = on_standin("doctor")
    assert result["machine"]["device"] == "standin:0"
    assert result["machine"]["num_accelerators"] == 1
    assert result["limits"]["host_to_device"] > 0


@pytest.mark.parametrize("name", SAVINGS)
def test_less_lies_on_the_device_and_the_numbers_are_the_same(name):
    result = on_standin(name)
    assert result["is_same"]  # bitwise, for whole runs and for those that stopped and went on
    assert result["with"]["notices"] == []
    assert result["with"]["after_forward"] < 0.75 * result["without"]["after_forward"]
