"""A script's own steps in float64, the reference for what rounding does to them.

On a device without 64-bit numbers the run fails, and there is no reference.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from volano.device.torch_private import is_transformed
from volano.script.model_calls import is_computed_again, map_output, outermost_calls
from volano.task import map_tensors


@contextlib.contextmanager
def computed_in_float64() -> Iterator[None]:
    """Returns a context in which the outermost call of a model that is trained computes in float64.
    What comes out is fp32 again: losses are computed of it outside."""
    wide: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def treat(module: nn.Module, original: Any, args: Any, kwargs: Any) -> Any:
        if is_transformed():
            return original(module, *args, **kwargs)
        if module not in wide:
            is_trained = any(parameter.requires_grad for parameter in module.parameters())
            if not is_trained or is_computed_again():
                return original(module, *args, **kwargs)
            module.double()
            wide.add(module)
        args, kwargs = map_tensors(_in_float64, (args, kwargs))
        return map_output(_in_float32, original(module, *args, **kwargs))

    with outermost_calls(treat):
        yield


def _in_float64(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
