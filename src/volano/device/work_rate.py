"""Measures how fast a device does one kind of work, in a fraction of a second however slow it is.

A processor without units for a type is a hundred times slower in it than in fp32, so no amount of
work is right for every device. A measurement therefore begins with little work and takes more only
while that ends in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch

from volano.device.device import Device

# The work of one repetition: a callable that does it, and its amount in the unit of the rate.
Work = tuple[Callable[[], object], float]


def measure_rate(
    device: Device, works: Iterable[Callable[[], Work]], *, limit_seconds: float
) -> float:
    """Returns units of work per second: the best repetition of the largest work that ends in time.

    Args:
        device: the device on which the work runs; it is synchronized after each repetition.
        works: makers of the same kind of work, smallest first. The next is made only if the rate so
            far says that one repetition ends within ``limit_seconds``, so the first must be small
            on any device, and each next about ten times as large: on a shared machine, a small work
            waits longer for a second thread than it computes.
        limit_seconds: seconds for the repetitions of the largest work; a fifth of it for each
            other.

    Raises:
        RuntimeError: the backend lacks an operation, or the memory, for the smallest work. Larger
            works that fail are left out.
    """
    chosen: Work | None = None
    rate = 0.0
    for make in works:
        try:
            run, amount = make()
            if chosen is not None and amount / rate > limit_seconds:
                break
            run()  # loads libraries and chooses kernels
            rate = amount / _best_seconds(device, run, limit_seconds / 5)
        except RuntimeError:
            if chosen is None:
                raise
            break
        chosen = run, amount
    assert chosen is not None, "at least one work"
    run, amount = chosen
    return max(rate, amount / _best_seconds(device, run, limit_seconds))


# An accelerator that waited for work runs at an idle clock, and needs 0.2 to 0.5 s to rise.
_WARM_SECONDS, _WARM_SIZE = 0.3, 1024


def warm_clock(device: Device) -> None:
    """Keeps an accelerator busy until its clock has risen, so that what is timed first is not the
    slowest for that alone. A CPU is left as it is."""
    if device.is_cpu:
        return
    matrix = torch.ones(_WARM_SIZE, _WARM_SIZE, device=device.torch_device)
    end = time.perf_counter() + _WARM_SECONDS
    while time.perf_counter() < end:
        torch.mm(matrix, matrix)
        device.synchronize()


def _best_seconds(device: Device, run: Callable[[], object], limit_seconds: float) -> float:
    """Returns the best of several repetitions: noise only ever slows down."""
    best, end = float("inf"), time.perf_counter() + limit_seconds
    while True:
        device.synchronize()
        start = time.perf_counter()
        run()
        device.synchronize()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best
