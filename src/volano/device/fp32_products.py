"""The rounding of products of fp32 numbers: matrices, convolutions, recurrent layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
    is_older_used, older = _older_setting()
    # Set by the older one, which keeps both in step: libraries may read either.
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    for place in places.values():
        if place.fp32_precision != precision:
            place.fp32_precision = precision
    try:
        yield
    finally:
        if is_older_used:
            torch.set_float32_matmul_precision(older)
        for name, place in places.items():
            if place.fp32_precision != before[name]:
                place.fp32_precision = before[name]


def _place(name: str) -> Any:
    place: Any = torch.backends
    for part in name.split("."):
        place = getattr(place, part)
    return place


def _older_setting() -> tuple[bool, str]:
    try:
        return True, torch.get_float32_matmul_precision()
    except RuntimeError:  # a mix of the two interfaces
        return False, ""
