"""Finds out whether other processes compute on this machine's cores, and takes fewer threads then.

Beside another process, the threads of an operation wait for the one that has no core: steps were
measured to take 254 to 633 ms with two threads and 61 to 64 ms with one (docs/log.md). What is
computed is what torch computes on a machine of fewer cores.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from volano.planner import PlanRequest

# The product that is timed, about half a millisecond of one core as most operations of a small
# network, and for how long: some of the slices in which a system shares its cores.
_SIDE, _SECONDS = 256, 0.08
# What fewer threads must save: on an idle machine whose cores share their units, they differ by
# chance.
_LEAST_SAVED = 0.2


def beside_others(
    planning: PlanRequest, world_size: int = 1
) -> tuple[PlanRequest, tuple[str, ...]]:
    """Returns a request with as many threads as pay beside other processes, and the reason; as it
    is if all pay, and where somebody has said how many or the CPU does not train."""
    is_named = "threads" in planning.pins or "threads" in planning.forbid
    if planning.plan is not None or is_named or world_size > 1 or not planning.place.is_cpu:
        return planning, ()
    most = threads = torch.get_num_threads()
    seconds = first = _product_seconds(threads) if threads > 1 else 0.0
    while threads > 1:
        fewer = _product_seconds(threads // 2)
        if fewer > (1.0 - _LEAST_SAVED) * seconds:
            break
        seconds, threads = fewer, threads // 2
    if threads == most:
        return planning, ()
    slower = f"{most} are {first / seconds:.2g} times as slow"
    said = f"threads={threads}: other processes compute here, {slower}"
    return planning.preferring(threads=threads), (said,)


@contextlib.contextmanager
def threads_of(planning: PlanRequest) -> Iterator[None]:
    """A context in which torch computes with the threads of a request, if it names any."""
    before, asked = torch.get_num_threads(), planning.pins.get("threads")
    if asked is not None:
        torch.set_num_threads(asked)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _product_seconds(threads: int) -> float:
    """Returns the seconds of a matrix product with so many threads."""
    before, count = torch.get_num_threads(), 0
    torch.set_num_threads(threads)
    try:
        square = torch.ones(_SIDE, _SIDE)
        torch.mm(square, square)
        begun = time.perf_counter()
        while (passed := time.perf_counter() - begun) < _SECONDS:
            torch.mm(square, square)
            count += 1
        return passed / max(1, count)
    finally:
        torch.set_num_threads(before)
