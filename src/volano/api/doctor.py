"""Finds what the machine is, what it can do at most, and what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from volano.device import (
    OPTIONAL_PACKAGES,
    Device,
    Limits,
    describe_machine,
    measure_limits,
    versions,
)
from volano.device.machine import Machine, untested_torch
from volano.thread_waits import SHORT_SPIN_COUNT, SPIN_COUNT, leaves_waits_open

# A load above this share of the cores before anything is measured is that of other programs.
_BUSY = 0.5


def doctor(device: str | None = None) -> dict[str, Any]:
    """Returns facts, measured limits and versions; takes about a second.

    Returns:
        ``verdict`` (what is slow here and what to set, in sentences), ``machine`` (sizes in
        bytes), ``limits`` (operations or bytes per second), ``versions``, and ``missing``: package
        -> what it is for and how to get it.

    Raises:
        UsageError: the device is not on this machine.
    """
    place = Device(device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # before this adds to it
    found = versions()
    missing = {
        package: f"{purpose}: pip install 'volano[{extra}]'"
        for package, (extra, purpose) in OPTIONAL_PACKAGES.items()
        if found[package] is None
    }
    machine, limits = describe_machine(place), measure_limits(place)
    return {
        "verdict": list(_verdict(machine, limits, load)),
        "machine": asdict(machine),
        "limits": asdict(limits),
        "versions": found,
        "missing": missing,
    }


def _verdict(machine: Machine, limits: Limits, load: float) -> Iterator[str]:
    """Returns sentences: what is slow here, and what to set."""
    is_cpu, cores = machine.device == "cpu", machine.num_cores
    if (untested := untested_torch()) is not None:
        yield f"{untested}: where something fails, try one of these."
    if is_cpu and machine.num_accelerators == 0:
        plural = "" if cores == 1 else "s"
        yield (
            f"No accelerator: trainings run on {cores} core{plural} of the processor. If there is "
            "one, install the torch build for it."
        )
    elif is_cpu:
        yield "There is an accelerator, and this is about the processor: leave out `device`."
    if limits.matmul_bf16 is not None:
        ratio = limits.matmul_bf16 / limits.matmul_fp32
        if ratio < 1.0:
            yield (
                f"bf16 is {1 / ratio:.1f} times slower than fp32 here: leave `precision` at "
                "fp32, which is what Volano takes."
            )
        else:
            yield (
                f"bf16 multiplies {ratio:.1f} times as fast as fp32: Volano tries it by itself "
                "where the task's tolerance allows it."
            )
    if is_cpu and machine.num_threads < cores:
        yield (
            f"torch uses {machine.num_threads} of {cores} cores: unset OMP_NUM_THREADS, or set it "
            f"to {cores}."
        )
    if is_cpu and load > _BUSY * cores:
        yield (
            f"Other programs are busy (load {load:.1f} on {cores} cores): trainings and these "
            "figures are slower than on a quiet machine."
        )
        if machine.num_threads > 1 and leaves_waits_open(os.environ):
            yield (
                f"Threads wait for each other for milliseconds there: set {SPIN_COUNT}="
                f"{SHORT_SPIN_COUNT} before Python starts, as the volano command does."
            )
