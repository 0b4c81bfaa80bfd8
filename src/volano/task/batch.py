"""The batches as trees: a tensor, or tuples, lists and mappings of batches; the walks over them.

A mapping is whatever has keys and items, such as the batches of tokenizers: it keeps its class.

The examples of a batch lie along dimension 0 of every tensor. Lists of strings and other leaves
that are not tensors pass through unchanged, except that a list as long as the batch is cut with it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from volano.errors import TaskError

Batch = Any


def map_tensors(function: Callable[[Tensor], Any], batch: Batch) -> Batch:
    """Returns the same tree with ``function`` applied to every tensor."""
    if isinstance(batch, Tensor):
        return function(batch)
    if is_mapping(batch):
        return _with_items(batch, {k: map_tensors(function, batch[k]) for k in batch.keys()})  # noqa: SIM118 - not every mapping iterates over its keys
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, item) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_tensors(function, item) for item in batch)
    return batch


def tensors_of(batch: Batch) -> Iterator[Tensor]:
    """Returns every tensor of the tree, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif is_mapping(batch):
        for key in batch.keys():  # noqa: SIM118 - as above
            yield from tensors_of(batch[key])
    elif isinstance(batch, tuple | list):
        for item in batch:
            yield from tensors_of(item)


def is_mapping(batch: Any) -> bool:
    """Returns whether a batch is a mapping, by its class or by its methods."""
    kind = type(batch)
    return isinstance(batch, Mapping) or (
        hasattr(kind, "keys") and hasattr(kind, "__getitem__") and hasattr(kind, "__setitem__")
    )


def _with_items(batch: Any, items: dict[Any, Any]) -> Any:
    """Returns a mapping of the class of ``batch`` with other items; ``batch`` stays as it is."""
    if type(batch) is dict:
        return items
    before = {key: batch[key] for key in items}
    with contextlib.suppress(Exception):  # a person's class may refuse either way
        copied = copy.copy(batch)
        for key, value in items.items():
            copied[key] = value
        if all(batch[key] is value for key, value in before.items()):
            return copied
        for key, value in before.items():  # the copy shares its items
            batch[key] = value
    with contextlib.suppress(Exception):
        return type(batch)(items)
    raise TaskError(
        "A mapping as a batch must be copied by copy.copy, or made from a dict",
        got=type(batch).__name__,
        remedy="Give it a method __copy__, or return a dict from `collate`",
    )


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
    smaller. A batch that is one piece is not taken apart."""
    count = num_examples(batch)
    if micro_batch >= count:
        return [batch]
    starts = range(0, count, micro_batch)
    return [_cut(batch, count, slice(start, min(start + micro_batch, count))) for start in starts]


def pick(batch: Batch, places: list[int]) -> Batch:
    """Returns the examples of a batch at some places."""
    return _cut(batch, num_examples(batch), places)


def _cut(batch: Batch, count: int, rows: slice | list[int]) -> Batch:
    if isinstance(batch, Tensor):
        if batch.ndim and batch.shape[0] != count:
            raise TaskError(
                "The tensors of a batch that is split must have their examples along dimension 0",
                got=f"{batch.shape[0]} and {count} examples",
                remedy="Give scalars no dimension, keep constants in the model, or do not pin "
                "micro_batch",
            )
        if not batch.ndim:
            return batch
        if isinstance(rows, list):
            return batch.index_select(0, torch.tensor(rows, device=batch.device))
        is_dense = batch.layout == torch.strided
        return batch[rows] if is_dense else batch.narrow_copy(0, rows.start, rows.stop - rows.start)
    if is_mapping(batch):
        items = {key: _cut(batch[key], count, rows) for key in batch.keys()}  # noqa: SIM118 - as above
        return _with_items(batch, items)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cut(item, count, rows) for item in batch))
    if isinstance(batch, tuple | list):
        if len(batch) == count and not any(
            isinstance(item, Tensor | tuple | list) or is_mapping(item) for item in batch
        ):
            return batch[rows] if isinstance(rows, slice) else type(batch)(batch[n] for n in rows)
        return type(batch)(_cut(item, count, rows) for item in batch)
    return batch
