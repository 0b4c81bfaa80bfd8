"""Measures the rates that typical operations of a training reach on this device, forwards and
backwards.

A large matrix product says little about convolutions, attention or recurrent layers: they run
through other libraries. Measured on a CPU, fp32 convolutions reach 1.7 times the rate of a matrix
product there, and attention in bf16 less than a tenth of it (benchmarks/time_prediction.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
import torch.nn.functional as F

from volano.device.device import Device
from volano.device.work_rate import Work, measure_rate

_SECONDS_PER_KERNEL = 0.1
_NUM_LAUNCHES = (5, 40, 200)
# Multiply-adds of a backward pass per one of the forward pass: two products for each; attention
# also recomputes its scores (Dao 2023, arXiv:2307.08691, section 4.1).
_BACKWARD, _ATTENTION_BACKWARD = 2, 2.5


LAUNCH = "launch"


def kernel_names(device: Device) -> tuple[str, ...]:
    """Returns the names of all rates that are measured on a device: those of a type without units
    of its own, which is not trained in, are not among them."""
    precisions = ("fp32", "bf16") if device.has_bf16_units else ("fp32",)
    names = [f"{name} {precision}" for precision in precisions for name in kernels_of(device)]
    return (*names, LAUNCH)


def measure_kernels(device: Device, names: Collection[str] | None = None) -> dict[str, float]:
    """Measures rates for about a quarter of a second each, on a device of any speed; random state
    is put back.

    Args:
        names: names among those of :func:`kernel_names`; None measures all.

    Returns:
        ``"convolution channels_last bf16"``, ``"convolution contiguous fp32"``, ``"attention
        bf16"``, ``"recurrent fp32"`` and so on -> floating-point operations per second of a forward
        and a backward pass; kernels that fail here are missing. ``"launch"`` -> seconds of the host
        for one small operation and its gradient, each.
    """
    rates: dict[str, float] = {}
    kernels = kernels_of(device)
    states = device.rng_state()
    try:
        for name in kernel_names(device) if names is None else names:
            kind, _, precision = name.rpartition(" ")
            rate = _launch(device) if name == LAUNCH else _rate(device, kernels[kind], precision)
            if rate is not None:
                rates[name] = rate
    finally:
        device.set_rng_state(states)
    return rates


# The forward pass, the tensors whose gradients are wanted, and the floating-point operations of
# both passes.
_Kernel = tuple[Callable[[], torch.Tensor], Sequence[torch.Tensor], float]


def _rate(
    device: Device, kernels: Sequence[Callable[[Device], _Kernel]], precision: str
) -> float | None:
    def work(make: Callable[[Device], _Kernel]) -> Work:
        forward, leaves, flops = make(device)

        def step() -> None:
            with device.autocast(precision):
                out = forward()
            torch.autograd.grad(out.float().sum(), leaves)

        return step, flops

    try:
        return measure_rate(
            device, [partial(work, make) for make in kernels], limit_seconds=_SECONDS_PER_KERNEL
        )
    except RuntimeError:  # a backend without that kernel, or without the memory
        return None


def _convolution(
    device: Device, size: tuple[int, int, int], layout: torch.memory_format
) -> _Kernel:
    batch, channels, side = size
    shapes = (batch, channels, side, side), (channels, channels, 3, 3)
    image, weight = (
        _leaf(device, shape).detach().to(memory_format=layout).requires_grad_() for shape in shapes
    )
    flops = 2 * channels * channels * 9 * batch * side**2
    return lambda: F.conv2d(image, weight, padding=1), (image, weight), (1 + _BACKWARD) * flops


def _attention(device: Device, size: tuple[int, int, int, int]) -> _Kernel:
    batch, heads, length, width = size
    leaves = [_leaf(device, size) for _ in range(3)]
    flops = 4 * batch * heads * length**2 * width

    def forward() -> torch.Tensor:
        # Autocast does not cast this operation's inputs; in a model they come out of a linear
        # layer, already cast.
        query, key, value = (_as_autocast(leaf, device) for leaf in leaves)
        return F.scaled_dot_product_attention(query, key, value)

    return forward, leaves, (1 + _ATTENTION_BACKWARD) * flops


def _recurrent(device: Device, size: tuple[int, int, int]) -> _Kernel:
    batch, length, width = size
    layer = torch.nn.LSTM(width, width, batch_first=True, device=device.torch_device)
    rows = _leaf(device, (batch, length, width))
    flops = 2 * batch * length * 4 * width * 2 * width
    return lambda: layer(rows)[0], (rows, *layer.parameters()), (1 + _BACKWARD) * flops


def kernels_of(device: Device) -> dict[str, list[Callable[[Device], _Kernel]]]:
    """Returns makers of each kernel by its name, smallest first: the largest looks like a layer of
    a model that such a device trains; the smallest ends at once if a type has no units of its
    own."""
    if device.is_cpu:
        images = [(1, 16, 16), (2, 32, 16), (4, 64, 16), (16, 64, 32)]
        rows = [(1, 2, 64, 32), (2, 4, 96, 32), (8, 4, 128, 32)]
        sequences = [(4, 8, 64), (16, 16, 64), (32, 32, 128)]
    else:
        images = [(2, 32, 16), (16, 64, 16), (64, 128, 16), (256, 128, 32)]
        rows = [(1, 4, 128, 64), (2, 8, 256, 64), (8, 16, 512, 64), (16, 16, 1024, 64)]
        sequences = [(8, 8, 64), (32, 16, 128), (128, 32, 256), (256, 64, 512)]
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    return {
        **{
            f"convolution {name}": [
                partial(_convolution, size=size, layout=layout) for size in images
            ]
            for name, layout in layouts.items()
        },
        "attention": [partial(_attention, size=size) for size in rows],
        "recurrent": [partial(_recurrent, size=size) for size in sequences],
    }


def _leaf(device: Device, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, device=device.torch_device, requires_grad=True)


def _as_autocast(tensor: torch.Tensor, device: Device) -> torch.Tensor:
    kind = device.torch_device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _launch(device: Device) -> float:
    leaf = torch.ones(1, device=device.torch_device, requires_grad=True)

    def work(count: int) -> Work:
        def step() -> None:
            out = leaf
            for _ in range(count):
                out = out * 0.5
            torch.autograd.grad(out, leaf)

        return step, 2 * count

    return 1 / measure_rate(
        device, [partial(work, count) for count in _NUM_LAUNCHES], limit_seconds=_SECONDS_PER_KERNEL
    )
