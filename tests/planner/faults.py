"""Faults that a plan brings about: with plain eager PyTorch each of these nets computes the right
thing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from volano.training import Session


class _Scaled(torch.autograd.Function):
    """The identity, with a gradient that is multiplied by ``factor``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # pyright: ignore
        return gradient * ctx.factor, None


class WrongGradient(nn.Module):
    """A net of two layers; where ``happens`` says so, the gradient between them is 1.2 times the
    right one."""

    def __init__(self, happens: Any) -> None:
        super().__init__()
        self.first, self.second, self.happens = nn.Linear(64, 32), nn.Linear(32, 10), happens

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        return self.second(_Scaled.apply(hidden, 1.2 if self.happens(x) else 1.0))


def in_bf16(_x: torch.Tensor) -> bool:
    """Whether the plan narrows."""
    return torch.is_autocast_enabled("cpu")


def compiled(_x: torch.Tensor) -> bool:
    """Whether the plan compiles."""
    return torch.compiler.is_compiling()


def compiled_in_bf16(_x: torch.Tensor) -> bool:
    """Whether it does both."""
    return torch.is_autocast_enabled("cpu") and torch.compiler.is_compiling()


def in_parts(x: torch.Tensor) -> bool:
    """Whether the plan splits batches of 32, or of the 8 on which coupling is measured."""
    return len(x) not in (32, 8)


class Overflowing(nn.Module):
    """Where the plan narrows, it computes in fp16 with values beyond its largest, 65504."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x):
        hidden = torch.relu(self.first(x)) * 1e6
        if torch.is_autocast_enabled("cpu"):
            hidden = hidden.half()
        return self.second(hidden.float() / 1e6)


class GlobalMaximum(nn.Module):
    """A fault of torch's own (2.13, CPU): NaN gradients where it is compiled in bf16.

    The backward pass of ``amax`` shares the gradient among the places that equal the maximum.
    Compiled, it recomputes ``gelu`` in fp32 and compares it with a maximum that was rounded to
    bf16: no place is equal, and zero is divided by zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(nn.functional.gelu(self.conv(x.unflatten(1, (1, 8, 8)))).amax((2, 3)))


class OtherDropout(Session):
    """A knob with a fault: under ``recompute="blocks"`` dropout is recomputed with other draws."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.plan.recompute == "blocks":
            inner = self.model.forward
            self.model.forward = lambda x: checkpoint(
                inner, x, use_reentrant=False, preserve_rng_state=False
            )
