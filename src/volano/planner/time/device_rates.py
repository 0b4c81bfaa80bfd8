"""The rates that a device of this machine reaches, measured once, and the calibration from measured
steps: both in the user's cache folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from volano.device import (
    Device,
    Limits,
    describe_machine,
    measure_kernels,
    measure_limits,
    versions,
)
from volano.errors import VolanoError
from volano.planner.time.calibration import Calibration
from volano.planner.time.roofline import Rates
from volano.record.cache_folder import cache_folder, write_record

SCHEMA_VERSION = 1
_CALIBRATION = "calibration.json"
# Of a product's rate in fp32; kernels were measured at 0.4 to 1.7 of it.
_LEAST_OF_PRODUCT = 0.05


def rates_of(device: Device) -> Rates:
    """Returns the rates of a device. The first time on a machine it measures them for some
    seconds."""
    machine = describe_machine(device)
    known = [
        machine.device_name,
        machine.device_memory,
        machine.num_threads,
        versions()["torch"],
        SCHEMA_VERSION,
    ]
    path = (
        cache_folder()
        / "rates"
        / f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}.json"
    )
    record = _read(path)
    if record is None:
        limits, measured = measure_limits(device), measure_kernels(device)
        kernels = _believed(measured, limits)
        record = {
            "device": machine.device_name,
            "limits": dataclasses.asdict(limits),
            "kernels": kernels,
        }
        if kernels == measured:
            write_record(path, record)  # if that fails they are measured again next time
    return Rates.of_measured(
        Limits(**record["limits"]), record["kernels"], name=machine.device_name
    )


def _believed(kernels: dict[str, float], limits: Limits) -> dict[str, float]:
    """Returns the kernels' rates without those that say more of other processes than of the device:
    on a busy processor a small kernel waits for its second thread, and seems a thousand times
    slower than it is. In fp32 no library of a CPU lies that far below a product."""
    if limits.host_to_device is not None:
        return kernels
    least = _LEAST_OF_PRODUCT * limits.matmul_fp32
    return {
        name: rate for name, rate in kernels.items() if not name.endswith(" fp32") or rate >= least
    }


def kept_calibration() -> Calibration:
    """Returns the calibration of earlier searches on this machine; an empty one if none can be
    read."""
    try:
        return Calibration.from_json(
            json.loads((cache_folder() / _CALIBRATION).read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, VolanoError):
        return Calibration()


def keep_calibration(calibration: Calibration) -> None:
    """Keeps the calibration for the next search; if it cannot be written, it is learned again."""
    write_record(cache_folder() / _CALIBRATION, calibration.to_json())


def _read(path: Any) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        Limits(**record["limits"])
        return record if isinstance(record["kernels"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
