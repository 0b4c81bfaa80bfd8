"""Tells how long ``torch.compile`` takes on this machine, as a multiple of what a step's operations
alone predict: by what it took here before, or by how fast the processor runs Python."""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path

from volano.device import Device, describe_machine, versions
from volano.record.cache_folder import cache_folder, read_record, write_record

SCHEMA_VERSION = 1
_FILE = "compilation.json"
# So many measurements are kept, and the longest of them counts: the first compilation of a machine
# builds headers and tests, a later one of the same step finds all of it.
_KEPT = 3
_LEAST, _MOST = 1 / 16, 16.0
# Seconds that a loop of so many rounds takes on the processors on which predictions were fitted,
# and for how long it is run: some of the slices in which a system shares its cores.
_ROUNDS, _ROUNDS_SECONDS, _SECONDS = 20_000, 1.3e-3, 0.05


class CompileTime:
    """The ratio of measured to predicted seconds of compilations on a machine.

    Args:
        device: the device of the plans.

    Attributes:
        is_measured: whether something was compiled here before.
    """

    def __init__(self, device: Device) -> None:
        machine = describe_machine(device)
        parts = (machine.device_name, machine.num_cores, versions()["torch"])
        self._key = " | ".join(map(str, parts))
        self._ratios = _read(_path()).get(self._key, [])

    @property
    def is_measured(self) -> bool:
        """Returns whether something was compiled here before."""
        return bool(self._ratios)

    @property
    def factor(self) -> float:
        """The factor on what is predicted from the operations."""
        return max(self._ratios) if self._ratios else max(1.0, processor_slowness())

    def note(self, predicted: float, measured: float) -> None:
        """Keeps what a compilation took; ``predicted``: from its operations alone."""
        if not 0.0 < measured < math.inf:
            return
        ratio = min(_MOST, max(_LEAST, measured / predicted))
        self._ratios = [*self._ratios, ratio][-_KEPT:]
        ratios = {**_read(_path()), self._key: self._ratios}
        # If it cannot be written, it is learned again.
        write_record(_path(), {"schema_version": SCHEMA_VERSION, "ratios": ratios})


@functools.cache
def processor_slowness() -> float:
    """Returns the time of a loop in Python as a multiple of its time where predictions were
    fitted: compilers are of that kind, and other processes slow both down alike."""
    count, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < _SECONDS:
        total = 0
        for number in range(_ROUNDS):
            total += number * number
        count += 1
    return passed / count / _ROUNDS_SECONDS


def _path() -> Path:
    return cache_folder() / _FILE


def _read(path: Path) -> dict[str, list[float]]:
    """Returns the ratios of all machines; none if they cannot be read."""
    try:
        return {
            str(key): [min(_MOST, max(_LEAST, float(ratio))) for ratio in ratios][-_KEPT:]
            for key, ratios in read_record(path, SCHEMA_VERSION)["ratios"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
