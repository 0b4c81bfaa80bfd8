"""The time for which threads of the host's arithmetic wait for each other before they sleep.

They meet at the end of each operation. In GNU's OpenMP, which torch uses on Linux, those that come
first turn round and round, 300,000 times unless the environment says otherwise (``GOMP_SPINCOUNT``
in libgomp's manual): for milliseconds. Where another process computes, the thread that they wait
for may be without a core all the while, at each of a step's many operations: steps of 30 ms were
seen to take 400. The numbers are the same however long is waited.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

SPIN_COUNT = "GOMP_SPINCOUNT"
# Some 0.2 ms: longer than from one operation to the next, shorter than a scheduler's turn.
# Measured on two cores (docs/log.md, 2026-11-30 and 2026-12-01), on no machine of many.
SHORT_SPIN_COUNT = 10_000
_NAMES = (SPIN_COUNT, "OMP_WAIT_POLICY")
_set_here: set[str] = set()  # the variables of this process that it was not started with


def leaves_waits_open(environment: Mapping[str, str]) -> bool:
    """Returns whether an environment leaves to OpenMP how long threads wait."""
    return not any(name in environment for name in _NAMES)


def shorten_waits(
    environment: MutableMapping[str, str] = os.environ, spin_count: int = SHORT_SPIN_COUNT
) -> None:
    """Has threads sleep sooner: those of processes that get this environment and, if it is this
    process's own, of this one as long as OpenMP is not loaded. What the environment says already
    stands."""
    if leaves_waits_open(environment):
        environment[SPIN_COUNT] = str(spin_count)
        if environment is os.environ:
            _set_here.add(SPIN_COUNT)


def environment_as_given() -> dict[str, str]:
    """Returns a copy of this process's environment without what :func:`shorten_waits` has set."""
    return {name: value for name, value in os.environ.items() if name not in _set_here}
