"""Datasets whose data lies in tensors, and the check for them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from volano.errors import TaskError
from volano.task import Batch, map_tensors, num_bytes, num_examples, tensors_of


class Arrays(Dataset[Any]):
    """A map-style dataset over a tree of tensors with the examples along dimension 0.

    It can be kept on the device as it is, so use the smallest type: bytes of pixels, ids of tokens.

    Args:
        tree: a tensor, or tuples, lists or dicts of tensors of equal length.
    """

    def __init__(self, tree: Batch) -> None:
        lengths = {tensor.shape[0] if tensor.ndim else None for tensor in tensors_of(tree)}
        if len(lengths) != 1 or None in lengths:
            raise TaskError(
                "All tensors of an Arrays dataset must have the same length along dimension 0",
                got=lengths,
            )
        self.tree = tree

    def __len__(self) -> int:
        return num_examples(self.tree)

    def __getitem__(self, index: int) -> Any:
        return map_tensors(lambda tensor: tensor[index], self.tree)

    def fingerprint(self) -> str:
        """Returns a digest of the content."""
        digest = hashlib.sha256()
        for tensor in tensors_of(self.tree):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:32]


# The ``__getitem__``s that only index the tree.
_PLAIN: set[Callable[..., Any]] = {Arrays.__getitem__}


def plain_indexing(getitem: Callable[..., Any]) -> Callable[..., Any]:
    """Marks the ``__getitem__`` of a subclass of :class:`Arrays` as one that only indexes the
    tree."""
    _PLAIN.add(getitem)
    return getitem


class Rows(NamedTuple):
    """The rows of a tree of tensors: those at ``indices`` (int64 [rows]), or all of them if that is
    None.

    ``announce`` and ``in_sequence`` exist if the tensors are mapped from files, so that reading a
    row may read a disk. ``announce`` takes the rows of the tree that are read next and has them
    fetched in parallel; ``in_sequence`` gives a context in which the tree is read from one end to
    the other.
    """

    tree: Batch
    indices: Tensor | None
    announce: Callable[[Tensor], None] | None = None
    in_sequence: Callable[[], contextlib.AbstractContextManager[None]] | None = None

    @property
    def is_mapped(self) -> bool:
        """The answer whether the tensors are mapped from files."""
        return self.announce is not None

    def num_bytes(self) -> int:
        """The bytes of the rows, without reading any."""
        whole = num_bytes(self.tree)
        if self.indices is None:
            return whole
        return whole * len(self.indices) // max(1, num_examples(self.tree))

    def picked(self, positions: Tensor) -> Tensor:
        """Returns the places of rows ``positions`` in the tree, int64 [positions]."""
        return positions if self.indices is None else self.indices.index_select(0, positions)

    def tensors(self) -> Batch:
        """Returns the rows as one tree; a selection is copied."""
        if self.indices is None:
            return self.tree
        if self.announce is not None:
            self.announce(self.indices)
        return take(self.tree, self.indices)


def rows_of(data: Any) -> Rows | None:
    """Returns the rows of which ``data`` consists, or None for a dataset that computes its
    examples.

    Only datasets whose ``__getitem__`` is known to be plain indexing count, and no subclass that
    overrides it. Any other could draw a random crop, and storing its answers would freeze the
    augmentation.
    """
    if (
        isinstance(data, Arrays)
        and type(data).__getitem__ in _PLAIN
        and not hasattr(data, "__getitems__")
    ):
        # MemoryMapped has both.
        return Rows(
            data.tree, None, getattr(data, "announce", None), getattr(data, "in_sequence", None)
        )
    # A subclass may have overridden __getitem__.
    if type(data) is TensorDataset:
        return Rows(tuple(data.tensors), None)
    if type(data) is Subset:
        rows = rows_of(data.dataset)
        if rows is not None:
            positions = torch.as_tensor(data.indices, dtype=torch.int64)
            count = num_examples(rows.tree) if rows.indices is None else len(rows.indices)
            # As indexing counts.
            positions = torch.where(positions < 0, positions + count, positions)
            return rows._replace(indices=rows.picked(positions))
    return None


def take(tree: Batch, indices: Tensor) -> Batch:
    """Takes rows ``indices`` (int64 [rows], on the tree's device) of every tensor."""
    return map_tensors(lambda tensor: tensor.index_select(0, indices), tree)
