"""Picks the examples to look at, if only some can be: those that differ most in what a mean may be
taken over.

A mean over the tokens that count (``ignore_index``, a mask) equals the mean of its parts only if
every part has as many of them. Eight examples of equal length would show nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from volano.task import Batch, map_tensors, num_examples, tensors_of

# The number of common values that are examined: padding and ignored labels are among the commonest,
# even in texts with many values.
_MOST_VALUES = 16
# The number of places of a tensor that are counted, spread over all: sorting so many takes a tenth
# of a second.
_MOST_PLACES = 1_000_000


def most_unlike(batch: Batch, count: int) -> Batch:
    """Picks ``count`` examples of a batch: half of them with the fewest, then half with the most of
    the value whose number differs most between examples; the first ones if nothing differs or if
    the batch holds lists of its examples.
    """
    size = num_examples(batch)
    scores = _scores(batch, size)
    if count >= size or scores is None or _holds_lists(batch, size):
        return batch
    order = scores.argsort(stable=True)
    chosen = torch.cat([order[: count // 2], order[count // 2 - count :]])
    return map_tensors(
        lambda tensor: tensor[chosen.to(tensor.device)] if _is_along(tensor, size) else tensor,
        batch,
    )


def unlikeness(batch: Batch) -> float:
    """Returns how far the examples of a batch lie apart in the share of the value that differs
    most: a standard deviation."""
    scores = _scores(batch, num_examples(batch))
    return 0.0 if scores is None else float(scores.std(correction=0))


def _scores(batch: Batch, size: int) -> Tensor | None:
    """Returns for each example the share of a value in one of its tensors; None if none differs."""
    best, widest = None, 0.0
    for tensor in tensors_of(batch):
        if not _is_along(tensor, size) or not tensor.numel():
            continue
        for shares in _shares(tensor.detach().reshape(size, -1)):
            spread = float(shares.std(correction=0))
            if spread > widest:
                best, widest = shares, spread
    return best


def _shares(rows: Tensor) -> list[Tensor]:
    """Returns for each of the commonest values its share of each row; for floating-point numbers,
    that of zero alone."""
    rows = rows[:, :: -(-rows.numel() // _MOST_PLACES)]
    if rows.is_floating_point() or rows.is_complex():
        return [_share(rows, 0)]
    values, counts = rows.unique(return_counts=True)
    commonest = values[counts.topk(min(_MOST_VALUES, len(values))).indices]
    return [_share(rows, value) for value in commonest]


def _share(rows: Tensor, value: Any) -> Tensor:
    return (rows == value).sum(1).cpu().double() / rows.shape[1]


def _is_along(tensor: Tensor, size: int) -> bool:
    return tensor.ndim > 0 and tensor.shape[0] == size and tensor.layout == torch.strided


def _holds_lists(batch: Any, size: int) -> bool:
    if isinstance(batch, dict):
        return any(_holds_lists(value, size) for value in batch.values())
    if isinstance(batch, tuple | list):
        is_leaf = not any(isinstance(item, Tensor | dict | tuple | list) for item in batch)
        return (is_leaf and len(batch) == size) or any(_holds_lists(item, size) for item in batch)
    return False
