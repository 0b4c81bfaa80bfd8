"""A limit of the memory that this process may take on a device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from volano.device.device import Device
from volano.device.torch_private import set_allocator

# The driver's context and libraries' workspaces, which the allocator does not count; see
# planner/memory/predict.py.
_BESIDE_BYTES = (768 + 256) * 2**20
# A person's own settings of the allocator, under torch's new name and its old ones.
_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


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
        with segments_growing(device):
            yield True
    finally:
        set_fraction(1.0)


@contextlib.contextmanager
def segments_growing(device: Device) -> Iterator[bool]:
    """Returns a context in which the allocator lets its segments grow, so that blocks of ever other
    sizes leave no gaps; it gives False if the device cannot, or a person has set the allocator.

    Only under a budget, which gaps would eat into: what shares a device's memory with another
    process, or registers it, may not take such segments.
    """
    is_set = any(name in os.environ for name in _SETTINGS)
    if is_set or not device.has_growing_segments:
        yield False
        return
    is_given = set_allocator("expandable_segments:True")
    try:
        yield is_given
    finally:
        if is_given:
            set_allocator("expandable_segments:False")
