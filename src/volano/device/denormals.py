"""Numbers below the smallest normal one of their type, which a processor computes many times slower
than others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


@contextlib.contextmanager
def denormals_flushed() -> Iterator[bool]:
    """Returns a context in which this thread, and those that it starts, take numbers below the
    smallest normal one (1.2e-38 in fp32) for 0; it gives False if the processor cannot.

    Averages of gradients that have become 0 decay into such numbers and stay there: nine tenths of
    the smallest are rounded to the smallest. An update in which they are many takes three times as
    long (docs/log.md, "Denormals"). A training moves by less than its rounding: weights by 1e-30.
    """
    if are_denormals_flushed():
        yield True
        return
    is_set = torch.set_flush_denormal(True)
    try:
        yield is_set
    finally:
        torch.set_flush_denormal(False)


def are_denormals_flushed() -> bool:
    """Returns whether this thread takes numbers below the smallest normal one for 0."""
    return torch.full((1,), _SMALLEST_NORMAL).div_(2.0).item() == 0.0
