"""The rounding of products of fp32 numbers: matrices, convolutions, recurrent layers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch

# torch.backends.X.fp32_precision, since torch 2.9. By default cuDNN's convolutions and recurrent
# layers round their inputs to tf32 where matrix products do not.
_PLACES = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


@contextlib.contextmanager
def fp32_products(precision: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Returns a context in which all products of fp32 numbers are rounded alike; afterwards each
    setting is as before, whichever of torch's two interfaces it was made by."""
    places = {name: _place(name) for name in _PLACES}
    # Read by the newer interface: the older one raises if the two were mixed.
    before = {name: place.fp32_precision for name, place in places.items()}
    put_back = [*_older_settings()]
    # Set by the older one, which keeps both in step: libraries may read either.
    _set_matrices("high" if precision == "tf32" else "highest")
    _set_cudnn(precision == "tf32")
    for place in places.values():
        if place.fp32_precision != precision:
            place.fp32_precision = precision
    try:
        yield
    finally:
        for set_older in put_back:
            set_older()
        for name, place in places.items():
            if place.fp32_precision != before[name]:
                place.fp32_precision = before[name]


def _older_settings() -> Iterator[Callable[[], None]]:
    """Yields a function for each setting of the older interface that can be read: it sets that
    again. Read after a mix of both interfaces, it raises."""
    with contextlib.suppress(RuntimeError):
        yield functools.partial(_set_matrices, torch.get_float32_matmul_precision())
    with contextlib.suppress(RuntimeError):
        yield functools.partial(_set_cudnn, torch.backends.cudnn.allow_tf32)


def _set_matrices(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)


def _set_cudnn(allow_tf32: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allow_tf32


def _place(name: str) -> Any:
    place: Any = torch.backends
    for part in name.split("."):
        place = getattr(place, part)
    return place
