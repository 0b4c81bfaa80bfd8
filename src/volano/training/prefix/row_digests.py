"""Digests of examples, by which what was computed of them is found again.

On the host they are the first half of SHA-256: about 1 GB/s on a core. On an accelerator they are
multilinear hashes of 32-bit words modulo 2^64 (Lemire and Kaser 2014, "Strongly universal string
hashing is fast"), twice with independent weights: two given examples that differ have one digest
with a probability of 2^-66 at most, and of about 2^-128 if their lowest bits differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

Digest = Hashable
_DIGEST_BYTES = 16
# Bytes of the widened words at a time.
_WIDENED_BYTES = 2**26
_SEED = 0x766F6C  # of the weights: any will do


class RowDigests:
    """Digests of the rows of tensors.

    Args:
        device: where the tensors lie.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._weights: dict[tuple[int, int], Tensor] = {}

    def __call__(self, tensors: Sequence[Tensor]) -> list[Digest]:
        """Returns a digest for each row of tensors of equal length, all of them together."""
        if self.device.type == "cpu":
            return _sha256([bytes_of_rows(tensor) for tensor in tensors])
        return [tuple(row) for row in self.multilinear(tensors).tolist()]

    def of_region(self, region: int, tensors: Sequence[Tensor]) -> list[Digest]:  # noqa: ARG002
        """Returns the same for the tensors that enter a region of the frozen part."""
        return self(tensors)

    def of_constant(self, tensor: Tensor) -> Digest:
        """Returns the digest of a whole tensor."""
        return self([tensor.reshape(1, -1)])[0]

    def multilinear(self, tensors: Sequence[Tensor]) -> Tensor:
        """Returns int64 [rows, 2]. Weights are made once for each width."""
        found = torch.zeros(len(tensors[0]), 2, dtype=torch.int64, device=self.device)
        for place, tensor in enumerate(tensors):
            found += self._hashes(_words(tensor), place)
        return found

    def _hashes(self, words: Tensor, place: int) -> Tensor:
        width = words.shape[1]
        weights = self._weights.get((place, width))
        if weights is None:
            generator = torch.Generator().manual_seed(_SEED + place)
            drawn = torch.randint(-(2**62), 2**62, (2, 1, width + 1), generator=generator)
            weights = self._weights[place, width] = drawn.to(self.device)
        parts = []
        for part in words.split(max(1, _WIDENED_BYTES // (8 * max(1, width)))):
            wide = part.to(torch.int64)
            sums = [(wide * w[:, :-1]).sum(1) + w[:, -1] for w in weights.unbind()]
            parts.append(torch.stack(sums, 1))
        return torch.cat(parts)


def _sha256(columns: list[Tensor]) -> list[Digest]:
    arrays = [column.numpy() for column in columns]
    found: list[Digest] = []
    for rows in zip(*arrays, strict=True):
        digest = hashlib.sha256(rows[0].data)
        for row in rows[1:]:
            digest.update(row.data)
        found.append(digest.digest()[:_DIGEST_BYTES])
    return found


def _words(tensor: Tensor) -> Tensor:
    """Returns the bytes of each row as 32-bit words if they are so many, else one by one."""
    rows = _as_rows(tensor)
    if rows.shape[1] and rows.shape[1] * rows.element_size() % 4 == 0:
        return rows.view(torch.int32)
    return rows.view(torch.uint8)


def bytes_of_rows(tensor: Tensor) -> Tensor:
    """Returns the bytes of each row, uint8 [rows, bytes]."""
    return _as_rows(tensor).view(torch.uint8)


def _as_rows(tensor: Tensor) -> Tensor:
    rows = tensor.detach().contiguous().reshape(len(tensor), -1)
    return rows if rows.shape[1] else rows.new_zeros(len(rows), 0, dtype=torch.uint8)
