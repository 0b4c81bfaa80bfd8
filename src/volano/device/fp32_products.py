"""The rounding of products of fp32 numbers: matrices, convolutions, recurrent layers."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch

# torch.backends.X.fp32_precision, since torch 2.9. By default cuDNN's convolutions and recurrent
# layers round their inputs to tf32 where matrix products do not.
_PLACES = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


@contextlib.contextmanager
def fp32_products(precision: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Returns a context in which all products of fp32 numbers are rounded alike; afterwards each
    setting is as before, whichever of torch's two interfaces it was made by."""
    # Read by the newer interface: the older one raises if the two were mixed.
    before = {name: _place(name).fp32_precision for name in _PLACES}
    with _unwarned():
        put_back = [*_older_settings()]
        # Set by the older one, which keeps both in step: libraries may read either.
        _set_matrices("high" if precision == "tf32" else "highest")
        _set_cudnn(precision == "tf32")
    _set_places(dict.fromkeys(_PLACES, precision))
    try:
        yield
    finally:
        with _unwarned():
            for set_older in put_back:
                set_older()
        _set_places(before)


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    # torch 2.9 says once in a process that the older interface will go; no person here has used it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
        yield


def _set_places(precisions: Mapping[str, str]) -> None:
    for name, precision in precisions.items():
        place = _place(name)
        if place.fp32_precision != precision:
            place.fp32_precision = precision


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
