"""The likeness of gradients, updates and buffers: relative errors, cosines, bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from volano.device.torch_private import sparse_values_of
from volano.planner.parity.probe_batch import Gradient

# Single parameters are compared that have at least so many elements and this share of the norm.
_LEAST_ELEMENTS, _LEAST_SHARE = 1000, 1e-6


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """The likeness of two sets of tensors by name: relative L2 error, cosine, cosines of those that
    are large enough to tell."""

    error: float
    cosine: float
    by_parameter: Mapping[str, float]

    @property
    def least(self) -> float:
        """The least cosine of a single parameter."""
        return min(self.by_parameter.values(), default=1.0)


def compare(found: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None]) -> Likeness:
    """Returns how alike two sets are, over the names of the second that both have tensors for."""
    sums: dict[str, tuple[float, float, float, float]] = {}
    for name, value in expected.items():
        mine = found[name]
        if value is None or mine is None:
            continue
        a, b = _double(mine), _double(value)
        sums[name] = (_dot(a - b, a - b), _dot(a, b), _dot(a, a), _dot(b, b))
    off, dot, ours, theirs = (
        math.fsum(row[column] for row in sums.values()) for column in range(4)
    )
    by_parameter = {
        name: _cosine(*row[1:])
        for name, row in sums.items()
        if (value := expected[name]) is not None
        and value.numel() >= _LEAST_ELEMENTS
        and row[3] > _LEAST_SHARE**2 * theirs
    }
    error = math.sqrt(off / theirs) if theirs else (0.0 if not off else math.inf)
    return Likeness(error=error, cosine=_cosine(dot, ours, theirs), by_parameter=by_parameter)


def names_of_none(tensors: Mapping[str, Tensor | None]) -> set[str]:
    """Returns the names for which there is no tensor."""
    return {name for name, value in tensors.items() if value is None}


def relative(value: float, expected: float) -> float:
    """Returns how far a number is off another, as a share of it."""
    return abs(value - expected) / max(abs(expected), 1e-12)


def distance(value: Tensor, expected: Tensor) -> float:
    """Returns how far a tensor is off another, as a share of its norm."""
    a, b = _double(value), _double(expected)
    norm = float(b.norm())
    return float((a - b).norm()) / norm if norm else float((a - b).norm())


def is_finite(value: Tensor) -> bool:
    """Returns whether a tensor holds finite numbers alone."""
    return bool((sparse_values_of(value) if value.is_sparse else value).isfinite().all())


def different(found: Gradient, expected: Gradient) -> list[str]:
    """Returns the names of gradients and buffers that differ in a bit."""
    pairs = ((found.gradients, expected.gradients), (found.buffers, expected.buffers))
    return [
        name
        for ours, theirs in pairs
        for name, value in theirs.items()
        if not _is_same(value, ours[name])
    ]


def change(found: Gradient, expected: Gradient, name: str) -> float:
    """Returns how far a gradient or a buffer is off, as a share of its norm."""
    kind = "gradients" if name in expected.gradients else "buffers"
    ours, theirs = getattr(found, kind)[name], getattr(expected, kind)[name]
    return math.inf if ours is None or theirs is None else distance(ours, theirs)


def _is_same(value: Any, other: Any) -> bool:
    if value is None or other is None:
        return value is other
    return torch.equal(_double(value), _double(other))


def _cosine(dot: float, ours: float, theirs: float) -> float:
    if not ours or not theirs:
        return 1.0 if ours == theirs else 0.0
    return dot / math.sqrt(ours) / math.sqrt(theirs)


def _double(value: Tensor) -> Tensor:
    return (value.to_dense() if value.is_sparse else value).cpu().double().flatten()


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a, b))
