"""A script's own steps in float64, the reference for what rounding does to them.

On a device without 64-bit numbers the run fails, and there is no reference.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from volano.task import map_tensors


@contextlib.contextmanager
def computed_in_float64() -> Iterator[None]:
    """Returns a context in which the outermost call of a model that is trained computes in float64.
    What comes out is fp32 again: losses are computed of it outside."""
    original: Any = nn.Module.__call__
    wide: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    inside: list[nn.Module] = []

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if inside or not (module.training and torch.is_grad_enabled() and _is_trained(module)):
            return original(module, *args, **kwargs)
        inside.append(module)
        try:
            if module not in wide:
                module.double()
                wide.add(module)
            args, kwargs = map_tensors(_in_float64, (args, kwargs))
            return map_tensors(_in_float32, original(module, *args, **kwargs))
        finally:
            inside.pop()

    nn.Module.__call__ = call  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        nn.Module.__call__ = original


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _in_float64(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
