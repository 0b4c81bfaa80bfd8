"""Contexts whose work leaves no trace in the default generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from volano.device.device import Device


@contextmanager
def random_state_kept(device: Device) -> Iterator[None]:
    """Returns a context after which the default generators of torch, NumPy and ``random`` stand as
    before it."""
    state = device.rng_state()
    try:
        yield
    finally:
        device.set_rng_state(state)
