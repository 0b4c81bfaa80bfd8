"""The measured limits of the device: the ceilings against which a training is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch

from volano.device.device import Device
from volano.device.fp32_products import fp32_products
from volano.device.work_rate import Work, measure_rate

_SECONDS_PER_LIMIT, _SECONDS_PER_PRODUCT = 0.25, 0.02


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The measured ceilings; None if the device does not support the type.

    A type without units of its own is measured only by a small product: a larger one would take
    minutes and show nothing more.

    Attributes:
        matmul_fp32: floating-point operations per second of a large square matrix product in fp32.
        matmul_bf16: the same rate in bf16.
        matmul_tf32: the same rate in fp32 with inputs rounded to tf32.
        memory_copy: bytes per second read plus written by a copy within the device's memory.
        host_to_device: bytes per second from host memory to the device; None on the CPU.
    """

    matmul_fp32: float
    matmul_bf16: float | None
    memory_copy: float
    host_to_device: float | None
    matmul_tf32: float | None = None


LIMITS = tuple(field.name for field in dataclasses.fields(Limits))


def measure_limits(device: Device) -> Limits:
    """Measures all limits, for a quarter of a second each; see :func:`measure_some_limits`."""
    found: Any = measure_some_limits(device, LIMITS)
    return Limits(**found)


def measure_some_limits(device: Device, names: Collection[str]) -> dict[str, float | None]:
    """Measures limits for a quarter of a second each, on a device of any speed; random state is put
    back.

    Args:
        names: fields of :class:`Limits`.

    Returns:
        name -> its value, as :class:`Limits` has it.
    """
    states = device.rng_state()
    try:
        return {name: _limit(device, name) for name in names}
    finally:
        device.set_rng_state(states)


def _limit(device: Device, name: str) -> float | None:
    sizes = (128, 256, 512, 1024) if device.is_cpu else (256, 512, 1024, 2048, 4096)
    if name == "matmul_fp32":
        return _fp32_rate(device, sizes, "ieee")
    if name == "matmul_bf16":
        has_it = device.supports("bf16")
        return _rate(device, _product, sizes, torch.bfloat16) if has_it else None
    if name == "matmul_tf32":
        return _fp32_rate(device, sizes, "tf32") if device.supports("tf32") else None
    if name == "memory_copy":
        # The last size is four times a large last-level cache, so that the copy reaches memory.
        num_copied = (2**21, 2**24, 2**27) if device.is_cpu else (2**22, 2**25, 2**28)
        return _rate(device, _copy, num_copied, torch.uint8)
    assert name == "host_to_device", name
    return None if device.is_cpu else _rate(device, _upload, (2**20, 2**23, 2**26), torch.uint8)


def bf16_speed(device: Device) -> float:
    """Measures the rate of a small product in bf16 as a multiple of fp32's, once for a process, in
    less than a tenth of a second on a device of any speed; 0 if it has none. Random state is put
    back.

    A backend may support the type, and say that it has units for it, where it only converts: a
    processor with AVX-512 and nothing for bf16, for example.
    """
    return _bf16_speed(device.name)


@cache
def _bf16_speed(name: str) -> float:
    device = Device(name)
    sizes = (128, 256) if device.is_cpu else (512, 1024, 2048)
    states = device.rng_state()
    try:
        narrow, wide = (
            _rate(device, _product, sizes, dtype, _SECONDS_PER_PRODUCT)
            for dtype in (torch.bfloat16, torch.float32)
        )
    except RuntimeError:
        return 0.0
    finally:
        device.set_rng_state(states)
    return narrow / wide


def _fp32_rate(device: Device, sizes: Sequence[int], precision: Literal["ieee", "tf32"]) -> float:
    with fp32_products(precision):
        return _rate(device, _product, sizes, torch.float32)


def _rate(
    device: Device,
    make: Callable[[Device, int, torch.dtype], Work],
    sizes: Sequence[int],
    dtype: torch.dtype,
    seconds: float = _SECONDS_PER_LIMIT,
) -> float:
    works = [partial(make, device, size, dtype) for size in sizes]
    return measure_rate(device, works, limit_seconds=seconds)


def _product(device: Device, size: int, dtype: torch.dtype) -> Work:
    # Random numbers: products of zeros and ones draw less power, and a clock then runs faster than
    # in a training.
    left, right = (torch.randn(size, size, device=device.torch_device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out), 2 * size**3


def _copy(device: Device, num_bytes: int, dtype: torch.dtype) -> Work:
    source, target = (
        torch.ones(num_bytes, dtype=dtype, device=device.torch_device) for _ in range(2)
    )
    return lambda: target.copy_(source), 2 * num_bytes


def _upload(device: Device, num_bytes: int, dtype: torch.dtype) -> Work:
    source = torch.ones(num_bytes, dtype=dtype)
    if device.can_pin:
        source = source.pin_memory()
    target = torch.empty(num_bytes, dtype=dtype, device=device.torch_device)
    return lambda: target.copy_(source, non_blocking=True), num_bytes
