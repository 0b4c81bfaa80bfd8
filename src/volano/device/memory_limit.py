"""A limit of the memory that this process may take on a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from volano.device.device import Device

# The driver's context and libraries' workspaces, which the allocator does not count; see
# planner/memory/predict.py.
_BESIDE_BYTES = (768 + 256) * 2**20


@contextlib.contextmanager
def memory_limited(device: Device, num_bytes: int | None) -> Iterator[bool]:
    """Returns a context in which the device's allocator gives no more than a budget of bytes leaves
    beside the driver; it gives False if there is no budget, or no such switch.

    What a wrong prediction then runs into is an out-of-memory error, after which a step is repeated
    in smaller parts, and not the memory of a neighbour.
    """
    total, set_fraction = device.memory().total, device.memory_fraction_setter()
    if num_bytes is None or set_fraction is None or not total:
        yield False
        return
    set_fraction(min(1.0, max(0, num_bytes - _BESIDE_BYTES) / total))
    try:
        yield True
    finally:
        set_fraction(1.0)
