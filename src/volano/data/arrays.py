"""Data that lies in tensors, and which data does."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from volano.errors import TaskError
from volano.task import Batch, map_tensors, num_examples, tensors_of


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


def tensor_tree(data: Any) -> Batch | None:
    """The tensors of which ``data`` consists, or None for a dataset that computes its examples.

    Only datasets whose ``__getitem__`` is known to be plain indexing count: any other could draw a random crop, and
    storing its answers would freeze the augmentation.
    """
    if isinstance(data, Arrays):
        return data.tree
    # A subclass may have overridden __getitem__.
    if type(data) is TensorDataset:
        return tuple(data.tensors)
    if type(data) is Subset:
        tree = tensor_tree(data.dataset)
        if tree is not None:
            return take(tree, torch.as_tensor(data.indices, dtype=torch.int64))
    return None


def take(tree: Batch, indices: Tensor) -> Batch:
    """Rows ``indices`` (int64 [rows], on the tree's device) of every tensor."""
    return map_tensors(lambda tensor: tensor.index_select(0, indices), tree)
