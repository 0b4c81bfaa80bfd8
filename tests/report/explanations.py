"""Explanations as the planner leaves them, made by hand, of the shape of real ones."""

from __future__ import annotations

from typing import Any

from volano.plan import Plan
from volano.plan.explanation import Candidate, Explanation, Refusal
from volano.plan.prediction import MemoryPrediction, TimePrediction

BASE = Plan.baseline("cpu").pin(feed="resident")
SAFE = BASE.pin(allocator="keep", optimizer="fused")
CHOSEN = SAFE.pin(precision="bf16", memory_format="channels_last")
COMPILED = CHOSEN.pin(compile=True)
MIB = 2**20
LONG_REASON = (
    "the guard: gradients differ by 3.1e-2 where rounding explains 4.0e-3; "
    + "layers.1.attention.key " * 9
)


def make_explanation(**changes: Any) -> Explanation:
    """An image task on a CPU, planned by a race of five candidates; ``changes`` replace fields."""
    memory = MemoryPrediction(
        peak=604 * MIB,
        lower=604 * MIB,
        upper=700 * MIB,
        categories={
            "parameters": 48 * MIB, "gradients": 48 * MIB, "optimizer_state": 96 * MIB,
            "activations": 380 * MIB, "temporaries": 20 * MIB, "batch": 12 * MIB, "data": 0,
        },
        operator="aten.convolution_backward in stages.2.conv1",
        origin="calibrated",
    )  # fmt: skip
    time = _time(0.0412)
    fields: dict[str, Any] = {
        "task": "digits",
        "device": "cpu",
        "device_name": "AMD EPYC 7B13",
        "is_present": True,
        "plan": CHOSEN,
        "origin": "raced",
        "num_steps": 2400,
        "num_examples": 128,
        "seconds": {"plan": 93.2, "eager": 171.8},
        "planning_seconds": 4.1,
        "verdict": "FITS",
        "budget": 1024 * MIB,
        "memory": memory,
        "time": time,
        "measured": 0.0384,
        "candidates": _candidates(),
        "refused": (
            Refusal(knob="precision", value="tf32", reason="cpu computes in fp32, bf16"),
            Refusal(knob="precision", value="fp16", reason="cpu computes in fp32, bf16"),
            Refusal(
                knob="optimizer", value="foreach", reason="as_given is one loop on the CPU as well"
            ),
            Refusal(knob="threads", value=2, reason="forbidden by you"),
        ),
        "notices": ("memory kept for the data: 12 MiB",),
    }
    return Explanation(**{**fields, **changes})


def _time(step: float) -> TimePrediction:
    parts = {
        "compute": 0.7 * step,
        "memory": 0.2 * step,
        "launch": 0.06 * step,
        "host": 0.04 * step,
    }
    return TimePrediction(step=step, startup=0.9, bounds=parts, origin="calibrated")


def _candidates() -> tuple[Candidate, ...]:
    return (
        Candidate(
            plan=CHOSEN, status="chosen", reason="the fastest that computes what plain eager does",
            predicted=_time(0.0412), measured=0.0384, startup=1.04, total=93.2,
            memory_bytes=604 * MIB, verdict="FITS",
            parity={"examples": 64, "error": 0.0021, "eager_error": 0.0019},
        ),
        Candidate(
            plan=SAFE, status="slower", reason="1.52x the chosen one's time, stopped early",
            predicted=_time(0.063), measured=0.0586, startup=0.31, total=141.0,
            memory_bytes=590 * MIB, verdict="FITS",
        ),
        Candidate(
            plan=BASE, status="slower", reason="1.84x the chosen one's time",
            predicted=_time(0.069), measured=0.0714, startup=0.44, total=171.8,

            memory_bytes=590 * MIB, verdict="FITS",
        ),
        Candidate(
            plan=SAFE.pin(precision="bf16"), status="struck", reason=LONG_REASON.strip(),
            predicted=_time(0.048), measured=0.0402, startup=0.3, total=96.8,
            memory_bytes=610 * MIB, verdict="FITS",
        ),
        Candidate(
            plan=COMPILED, status="untried",
            reason="it takes about 48 s and may save 18 s of this run",
            predicted=_time(0.031), startup=48.0, memory_bytes=None, verdict=None,
        ),
    )  # fmt: skip
