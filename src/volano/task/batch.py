"""The batches as trees: a tensor, or tuples, lists and dicts of batches. Four functions walk them.

The examples of a batch lie along dimension 0 of every tensor. Lists of strings and other leaves
that are not tensors pass through unchanged, except that a list as long as the batch is cut with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from volano.errors import TaskError

Batch = Any


def map_tensors(function: Callable[[Tensor], Any], batch: Batch) -> Batch:
    """Returns the same tree with ``function`` applied to every tensor."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, item) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_tensors(function, item) for item in batch)
    return batch


def tensors_of(batch: Batch) -> Iterator[Tensor]:
    """Returns every tensor of the tree, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, tuple | list):
        for item in batch:
            yield from tensors_of(item)


def num_examples(batch: Batch) -> int:
    """Returns the length of dimension 0 of the batch's first tensor that has one.

    Raises:
        TaskError: the batch holds no tensor with a dimension.
    """
    for tensor in tensors_of(batch):
        if tensor.ndim:
            return tensor.shape[0]
    raise TaskError(
        "A batch must hold at least one tensor with the examples along dimension 0",
        got=type(batch).__name__,
        remedy="Return tensors, or tuples, lists or dicts of tensors, from the data or from "
        "`collate`",
    )


def num_bytes(batch: Batch) -> int:
    """Returns the bytes that the tensors of the tree cover."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(batch))


def split(batch: Batch, micro_batch: int) -> list[Batch]:
    """Cuts the batch along dimension 0 into pieces of ``micro_batch`` examples; the last may be
    smaller."""
    count = num_examples(batch)
    starts = range(0, count, micro_batch)
    return [_cut(batch, count, start, min(start + micro_batch, count)) for start in starts]


def _cut(batch: Batch, count: int, start: int, stop: int) -> Batch:
    if isinstance(batch, Tensor):
        if batch.ndim and batch.shape[0] != count:
            raise TaskError(
                "The tensors of a batch that is split must have their examples along dimension 0",
                got=f"{batch.shape[0]} and {count} examples",
                remedy="Give scalars no dimension, keep constants in the model, or do not pin "
                "micro_batch",
            )
        return batch[start:stop] if batch.ndim else batch
    if isinstance(batch, Mapping):
        return {key: _cut(value, count, start, stop) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cut(item, count, start, stop) for item in batch))
    if isinstance(batch, tuple | list):
        if len(batch) == count and not any(
            isinstance(item, Tensor | Mapping | tuple | list) for item in batch
        ):
            return batch[start:stop]
        return type(batch)(_cut(item, count, start, stop) for item in batch)
    return batch
