"""Data that lies in tensors, and which data does."""

from __future__ import annotations

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

    It can be kept on the device as it is, so keep the smallest type: bytes of pixels, ids of tokens.

    Args:
        tree: a tensor, or tuples, lists or dicts of tensors of equal length.
    """

    def __init__(self, tree: Batch) -> None:
        lengths = {tensor.shape[0] if tensor.ndim else None for tensor in tensors_of(tree)}
        if len(lengths) != 1 or None in lengths:
            raise TaskError("All tensors of an Arrays dataset have the same length along dimension 0", got=lengths)
        self.tree = tree

    def __len__(self) -> int:
        return num_examples(self.tree)

    def __getitem__(self, index: int) -> Any:
        return map_tensors(lambda tensor: tensor[index], self.tree)

    def fingerprint(self) -> str:
        """Digest of the content."""
        digest = hashlib.sha256()
        for tensor in tensors_of(self.tree):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:32]


class Rows(NamedTuple):
    """Rows of a tree of tensors: those at ``indices`` (int64 [rows]), or all of them where that is None.

    ``announce`` is there where the tensors are mapped from files, and reading a row may read a disk: told the rows of
    the tree that are read next, it has them fetched side by side.
    """

    tree: Batch
    indices: Tensor | None
    announce: Callable[[Tensor], None] | None = None

    @property
    def is_mapped(self) -> bool:
        """Whether the tensors are mapped from files."""
        return self.announce is not None

    def num_bytes(self) -> int:
        """Bytes of the rows, without reading any."""
        whole = num_bytes(self.tree)
        return whole if self.indices is None else whole * len(self.indices) // max(1, num_examples(self.tree))

    def picked(self, positions: Tensor) -> Tensor:
        """Where rows ``positions`` lie in the tree, int64 [positions]."""
        return positions if self.indices is None else self.indices.index_select(0, positions)

    def tensors(self) -> Batch:
        """The rows as one tree; a selection is copied."""
        return self.tree if self.indices is None else take(self.tree, self.indices)


def rows_of(data: Any) -> Rows | None:
    """The rows of which ``data`` consists, or None for a dataset that computes its examples.

    Only datasets whose ``__getitem__`` is known to be plain indexing count: any other could draw a random crop, and
    storing its answers would freeze the augmentation.
    """
    if isinstance(data, Arrays):
        return Rows(data.tree, None, getattr(data, "announce", None))  # MemoryMapped has it
    # A subclass may have overridden __getitem__.
    if type(data) is TensorDataset:
        return Rows(tuple(data.tensors), None)
    if type(data) is Subset:
        rows = rows_of(data.dataset)
        if rows is not None:
            return rows._replace(indices=rows.picked(torch.as_tensor(data.indices, dtype=torch.int64)))
    return None


def tensor_tree(data: Any) -> Batch | None:
    """The tensors of which ``data`` consists, see :func:`rows_of`; None for a dataset that computes its examples."""
    rows = rows_of(data)
    return None if rows is None else rows.tensors()


def take(tree: Batch, indices: Tensor) -> Batch:
    """Rows ``indices`` (int64 [rows], on the tree's device) of every tensor."""
    return map_tensors(lambda tensor: tensor.index_select(0, indices), tree)
