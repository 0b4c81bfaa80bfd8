"""The rates that a device of this machine reaches, each measured once and when it is first needed,
and the calibration from measured steps: both in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from volano.device import (
    Device,
    Limits,
    describe_machine,
    kernel_names,
    measure_kernels,
    measure_some_limits,
    versions,
)
from volano.device.limits import LIMITS
from volano.errors import VolanoError
from volano.planner.time.calibration import Calibration
from volano.planner.time.roofline import Rates
from volano.record.cache_folder import cache_folder, read_record, write_record
from volano.record.json_values import mapping

SCHEMA_VERSION = 2
_CALIBRATION = "calibration.json"
# Of a product's rate in fp32; kernels were measured at 0.4 to 1.7 of it.
_LEAST_OF_PRODUCT = 0.05
# What each prediction needs; other limits and kernels are those of some operations.
_LIMITS, _KERNELS = ("matmul_fp32", "memory_copy", "host_to_device"), ("launch",)
_LIMIT_OF = {"bf16": "matmul_bf16", "fp16": "matmul_bf16", "tf32": "matmul_tf32"}

# name -> its rate, or None for what does not run here.
_Measured = dict[str, float | None]


def rates_of(device: Device, needed: Collection[str] | None = None) -> Rates:
    """Returns the rates of a device. What is needed for the first time on a machine is measured, a
    quarter of a second each.

    Args:
        needed: see :func:`volano.planner.time.roofline.rates_needed`; None needs all.
    """
    path = _path_of(device)
    limits, kernels = _read(path)
    names, known = kernel_names(device), (set(limits), set(kernels))
    if needed is None:
        needed = (*names, *_LIMIT_OF)
    some = {*_LIMITS, *(_LIMIT_OF[name] for name in needed if name in _LIMIT_OF)}
    limits |= measure_some_limits(device, sorted(some - limits.keys()))
    wanted = {*_KERNELS, *needed}
    missing = [name for name in names if name in wanted and name not in kernels]
    found = measure_kernels(device, missing)
    kernels |= {name: found.get(name) for name in missing}
    believed = {name: kernels[name] for name in kernels if _is_believed(name, kernels, limits)}
    if believed == kernels and (set(limits), set(kernels)) != known:
        # If that fails, they are measured again next time.
        write_record(path, {"limits": limits, "kernels": kernels})
    return Rates.of_measured(
        Limits(**{"matmul_bf16": None, **limits}),  # pyright: ignore[reportArgumentType]
        {name: rate for name, rate in believed.items() if rate is not None},
        name=describe_machine(device).device_name,
    )


def _path_of(device: Device) -> Path:
    machine = describe_machine(device)
    known = [
        machine.device_name,
        machine.device_memory,
        machine.num_threads,
        versions()["torch"],
        SCHEMA_VERSION,
    ]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    return cache_folder() / "rates" / f"{digest}.json"


def _is_believed(name: str, kernels: _Measured, limits: _Measured) -> bool:
    """Returns whether a kernel's rate says more of the device than of other processes: on a busy
    processor a small kernel waits for its second thread, and seems a thousand times slower than it
    is. In fp32 no library of a CPU lies that far below a product."""
    rate, product = kernels[name], limits["matmul_fp32"]
    if rate is None or product is None or limits["host_to_device"] is not None:
        return True
    return not name.endswith(" fp32") or rate >= _LEAST_OF_PRODUCT * product


def kept_calibration() -> Calibration:
    """Returns the calibration of earlier searches on this machine; an empty one if none can be
    read."""
    try:
        return Calibration.from_json(read_record(cache_folder() / _CALIBRATION))
    except (ValueError, VolanoError):
        return Calibration()


def keep_calibration(calibration: Calibration) -> None:
    """Keeps the calibration for the next search; if it cannot be written, it is learned again."""
    write_record(cache_folder() / _CALIBRATION, calibration.to_json())


def _read(path: Path) -> tuple[_Measured, _Measured]:
    """Returns the limits and kernels that were measured before; none if they cannot be read."""
    record = read_record(path)
    limits, kernels = dict(mapping(record.get("limits"))), dict(mapping(record.get("kernels")))
    is_whole = set(limits) <= set(LIMITS) and all(
        map(_is_rate, (*limits.values(), *kernels.values()))
    )
    return (limits, kernels) if is_whole else ({}, {})


def _is_rate(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value > 0)
