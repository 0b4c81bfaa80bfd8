"""What the device can do at most, measured: the ceilings against which a training is judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from volano.device.device import Device

_SECONDS_PER_LIMIT = 0.25


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Measured ceilings; None where the device does not support the type.

    Attributes:
        matmul_fp32: floating-point operations per second of a large square matrix product in fp32.
        matmul_bf16: the same in bf16.
        memory_copy: bytes per second read plus written by a copy within the device's memory.
        host_to_device: bytes per second from host memory to the device; None on the CPU.
    """

    matmul_fp32: float
    matmul_bf16: float | None
    memory_copy: float
    host_to_device: float | None


def measure_limits(device: Device) -> Limits:
    """Measures for about a second. The best of several repetitions counts: noise only ever slows down."""
    size = 1024 if device.is_cpu else 4096
    # Four times a large last-level cache, so that the copy meets memory.
    num_copied = 2**27 if device.is_cpu else 2**28
    return Limits(
        matmul_fp32=_matmul(device, size, torch.float32),
        matmul_bf16=_matmul(device, size, torch.bfloat16) if device.supports("bf16") else None,
        memory_copy=_copy(device, num_copied),
        host_to_device=None if device.is_cpu else _upload(device, num_copied // 4),
    )


def _matmul(device: Device, size: int, dtype: torch.dtype) -> float:
    left, right, out = (torch.ones(size, size, dtype=dtype, device=device.torch_device) for _ in range(3))
    return 2 * size**3 / _best_seconds(device, lambda: torch.mm(left, right, out=out))


def _copy(device: Device, num_bytes: int) -> float:
    source, target = (torch.zeros(num_bytes, dtype=torch.uint8, device=device.torch_device) for _ in range(2))
    return 2 * num_bytes / _best_seconds(device, lambda: target.copy_(source))


def _upload(device: Device, num_bytes: int) -> float:
    source = torch.zeros(num_bytes, dtype=torch.uint8)
    if device.can_pin:
        source = source.pin_memory()
    target = torch.empty(num_bytes, dtype=torch.uint8, device=device.torch_device)
    return num_bytes / _best_seconds(device, lambda: target.copy_(source, non_blocking=True))


def _best_seconds(device: Device, run: Callable[[], object]) -> float:
    run()
    device.synchronize()
    best, end = float("inf"), time.perf_counter() + _SECONDS_PER_LIMIT
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        device.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
