"""The counter-based random numbers: pure functions of their arguments, the same on every platform
and version.

torch's and NumPy's streams are not promised to stay the same between releases, and a stateful
generator depends on who drew before. Here a number is a hash of the place where it is used.
"""

from __future__ import annotations

import numpy as np

_MASK = (1 << 64) - 1
# The increment and the finalizer of SplitMix64 (Steele, Lea & Flood 2014).
_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB


def counter_hash(*counters: int) -> int:
    """Returns a 64-bit hash of whole numbers, sensitive to their order."""
    state = 0
    for counter in counters:
        state = _mix((state ^ (counter & _MASK)) + _INCREMENT)
    return state


def counter_hashes(counters: tuple[int, ...], num: int) -> np.ndarray:
    """Returns ``[counter_hash(*counters, i) for i in range(num)]`` as uint64 [num]."""
    state = np.uint64(counter_hash(*counters))
    with np.errstate(over="ignore"):
        values = (np.arange(num, dtype=np.uint64) ^ state) + np.uint64(_INCREMENT)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(_MULTIPLIER_1)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(_MULTIPLIER_2)
        return values ^ (values >> np.uint64(31))


def _mix(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * _MULTIPLIER_1) & _MASK
    value = ((value ^ (value >> 27)) * _MULTIPLIER_2) & _MASK
    return value ^ (value >> 31)
