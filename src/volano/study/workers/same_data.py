"""Checks that two tasks train on the same data: otherwise results cannot be compared, nor batches
be shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset

from volano.errors import ExploreError
from volano.packing.structure.callable_tree import Comparison
from volano.task import Task, describe_data


def check_same_data(task: Task, number: int, first: Task, first_number: int) -> None:
    """Raises ExploreError unless a trial's task trains on, and is evaluated on, the data of the
    study's first one."""
    for name in ("data", "valid"):
        difference = difference_of_data(getattr(task, name), getattr(first, name))
        if difference is not None:
            raise ExploreError(
                "All trials of a study must train, and be evaluated, on the same data",
                got=f"{name} of trial {number} and of trial {first_number}: {difference}",
                remedy="Make the data once, outside build; leave its choice out of the space",
            )


def difference_of_data(one: Any, other: Any) -> str | None:
    """Describes in words how two map-style sets differ; None if every example is the same.

    The same object is the same data. Two objects are compared by what they hold: by their
    ``fingerprint()``, as tensors or tables, or else attribute by attribute.
    """
    if one is other:
        return None
    if type(one) is not type(other):
        return f"{type(one).__name__} and {type(other).__name__}"
    if len(one) != len(other):
        return f"{len(one):,} and {len(other):,} examples"
    if isinstance(one, Subset):
        if not np.array_equal(np.asarray(one.indices), np.asarray(other.indices)):
            return "other rows of a Subset"
        return difference_of_data(one.dataset, other.dataset)
    if type(one) is TensorDataset:
        pairs = zip(one.tensors, other.tensors, strict=False)
        is_same = len(one.tensors) == len(other.tensors) and all(
            _are_equal(mine, its) for mine, its in pairs
        )
        return None if is_same else "TensorDatasets of other tensors"
    mine, its = describe_data(one), describe_data(other)
    if "content_digest" in mine:
        return None if mine == its else f"{type(one).__name__}s of other content"
    found = Comparison()
    found.values((("data", kind := type(one).__name__),), one, other, exact=True)
    if found.opaque:
        return f"two {kind}s that cannot be compared"
    return next(
        (f"{place}: {mine} and {its}" for place, (mine, its) in found.differences.items()), None
    )


def _are_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one is other:
        return True
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    other = other.to(one.device)
    # A missing value that is written as NaN is the same in both.
    return torch.equal(one, other) or (
        one.is_floating_point() and torch.allclose(one, other, 0.0, 0.0, equal_nan=True)
    )
