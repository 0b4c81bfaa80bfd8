"""Picks the examples to look at, if only some can be: those that differ most in what a mean may be
taken over.

A mean over the tokens that count (``ignore_index``, a mask) equals the mean of its parts only if
every part has as many of them. Eight examples of equal length would show nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from volano.task import Batch, is_mapping, map_tensors, num_examples, tensors_of

# The number of common values that are examined: padding and ignored labels are among the commonest,
# even in texts with many values.
_MOST_VALUES = 16
# The number of places of a tensor that are counted, spread over all: sorting so many takes a tenth
# of a second.
_MOST_PLACES = 1_000_000


def most_unlike(batch: Batch, count: int) -> Batch:
    """Picks ``count`` examples of a batch: those with the fewest, then those with the most of the
    value whose number differs most between examples; up to a third are examples with labels that
    these do not have, the rarest first. The first examples if nothing differs or if the batch
    holds lists of its examples.
    """
    size = num_examples(batch)
    if count >= size or _holds_lists(batch, size):
        return batch
    scores = _scores(batch, size)
    order = (torch.arange(size) if scores is None else scores.argsort(stable=True)).tolist()
    rare = _rarest(batch, size, _ends(order, count - count // 3))[: count // 3]
    if scores is None and not rare:
        return batch
    ends = _ends(order, count - len(rare))
    rare = [example for example in rare if example not in ends]
    chosen = [*ends, *rare]
    chosen += [example for example in order if example not in chosen][: count - len(chosen)]
    rows = torch.tensor(chosen)
    return map_tensors(
        lambda tensor: tensor[rows.to(tensor.device)] if _is_along(tensor, size) else tensor, batch
    )


def _ends(order: list[int], count: int) -> list[int]:
    return [*order[: count // 2], *order[len(order) - (count - count // 2) :]]


def values_of(batch: Batch) -> list[tuple[int, Any]]:
    """Returns the whole numbers that tensors with one value an example hold (labels, say), each
    with the place of its tensor; one entry for each example."""
    size = num_examples(batch)
    return [
        (place, value)
        for place, tensor in enumerate(tensors_of(batch))
        if _is_label(tensor, size) and not _is_real(tensor)
        for value in tensor.reshape(-1).tolist()
    ]


def _rarest(batch: Batch, size: int, chosen: list[int]) -> list[int]:
    """Returns examples with values of labels or weights that the chosen ones do not have, the
    rarest values first."""
    found: dict[int, int] = {}
    for tensor in tensors_of(batch):
        if not _is_label(tensor, size):
            continue
        values = tensor.detach().reshape(-1).tolist()
        had = {values[example] for example in chosen}
        counts = Counter(values)
        # Of real numbers nearly each is another: the extremes tell most.
        wanted = {min(counts), max(counts)} if _is_real(tensor) else counts.keys()
        for value in wanted - had:
            example = values.index(value)
            found[example] = min(counts[value], found.get(example, size))
    return sorted(found, key=lambda example: (found[example], example))


def _is_label(tensor: Tensor, size: int) -> bool:
    return _is_along(tensor, size) and tensor.numel() == size and not tensor.is_complex()


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


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
    if is_mapping(batch):
        return any(_holds_lists(batch[key], size) for key in batch.keys())  # noqa: SIM118 - not every mapping iterates over its keys
    if isinstance(batch, tuple | list):
        is_leaf = not any(
            isinstance(item, Tensor | tuple | list) or is_mapping(item) for item in batch
        )
        return (is_leaf and len(batch) == size) or any(_holds_lists(item, size) for item in batch)
    return False
