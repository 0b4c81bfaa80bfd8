"""The choices that a device's libraries make between kernels for the same operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from volano.device.torch_private import has_triton


def can_benchmark_convolutions(device_type: str) -> bool:
    """Returns whether the library of convolutions can time its algorithms for each new shape."""
    # cuDNN and MIOpen read one setting. Deterministic algorithms are not timed.
    return (
        device_type == "cuda"
        and torch.backends.cudnn.is_available()
        and not torch.are_deterministic_algorithms_enabled()
    )


@contextlib.contextmanager
def convolutions_benchmarked(is_on: bool) -> Iterator[None]:
    """Returns a context in which algorithms of convolutions are timed, or guessed."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = is_on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def attention_for_any_shape() -> Iterator[None]:
    """Returns a context in which attention runs on kernels that need no plan of their own for each
    new shape. cuDNN's takes 50 to 200 ms for one, which batches of ever other lengths pay each
    time."""
    attention: Any = torch.backends.cuda
    before = attention.cudnn_sdp_enabled()
    attention.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        attention.enable_cudnn_sdp(before)


def can_autotune_kernels(device_type: str) -> bool:
    """Returns whether the compiler can time several kernels of its own for a product."""
    return device_type in ("cuda", "xpu") and has_triton()
