"""Keeps what frozen modules have computed, example by example."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from volano.training.prefix.frozen_value import Source
from volano.training.prefix.row_digests import Digest

# Memory is taken in pieces of this size, so that filling needs no more than what is kept.
_PIECE_BYTES = 256 * 2**20


class NoRoomError(Exception):
    """The error of features that take more bytes than they may."""


class Allowance:
    """The bytes that features may take.

    Args:
        num_bytes: at most; None for no limit.
    """

    def __init__(self, num_bytes: int | None = None) -> None:
        self._most, self.taken = num_bytes, 0

    def take(self, num_bytes: int) -> None:
        """Takes so many more.

        Raises:
            NoRoomError: they are too many.
        """
        self.check(num_bytes)
        self.taken += num_bytes

    def check(self, num_bytes: int) -> None:
        """Raises NoRoomError if so many more are too many."""
        if self._most is not None and self.taken + num_bytes > self._most:
            raise NoRoomError(
                f"what it computes takes more than the {self._most / 2**20:,.0f} MiB that there "
                "are for it"
            )


class FeatureColumn:
    """A tensor that is kept, row by row.

    Args:
        like: the tensor of some rows, whose layout rows that are taken have as well.
        capacity: the most rows that are expected.
        allowance: the bytes of all columns.
    """

    def __init__(self, like: Tensor, capacity: int, allowance: Allowance) -> None:
        strides = like.stride()
        order = sorted(range(like.ndim), key=lambda place: -strides[place])
        # The layout is kept (channels_last has another order of dimensions) if rows lie in one
        # piece; kernels round by it.
        self._order = order if order[0] == 0 else list(range(like.ndim))
        self._back = [self._order.index(place) for place in range(like.ndim)]
        self._shape = [like.shape[place] for place in self._order[1:]]
        self._dtype, self._device, self._allowance = like.dtype, like.device, allowance
        row_bytes = max(1, like[:1].numel() * like.element_size())
        self._rows = max(1, min(capacity, _PIECE_BYTES // row_bytes))
        self._row_bytes = row_bytes
        self._pieces: list[Tensor] = []

    def put(self, first: int, rows: Tensor) -> None:
        """Writes rows from place ``first`` on."""
        rows = rows.permute(self._order)
        done = 0
        while done < len(rows):
            piece, place = divmod(first + done, self._rows)
            while piece >= len(self._pieces):
                self._allowance.take(self._rows * self._row_bytes)
                self._pieces.append(
                    torch.empty(self._rows, *self._shape, dtype=self._dtype, device=self._device)
                )
            count = min(self._rows - place, len(rows) - done)
            self._pieces[piece][place : place + count].copy_(rows[done : done + count])
            done += count

    def take(self, places: Sequence[int]) -> Tensor:
        """Returns the rows at places, a copy."""
        wanted = torch.tensor(places, device=self._device)
        if len(self._pieces) == 1:
            found = self._pieces[0].index_select(0, wanted)
        else:
            shape = (len(places), *self._shape)
            found = torch.empty(shape, dtype=self._dtype, device=self._device)
            of = wanted // self._rows
            for number in set(of.tolist()):
                mine = (of == number).nonzero()[:, 0]
                rows = wanted.index_select(0, mine) % self._rows
                found.index_copy_(0, mine, self._pieces[number].index_select(0, rows))
        return found.permute(self._back)


@dataclass
class Features:
    """The results of a frozen part for examples whose inputs have one shape.

    Attributes:
        rows: digest of an example's inputs -> its row in every column.
        columns: output that is used -> its rows.
        results: number of a call -> the tree of its result, tensors as their shapes and types.
        settings: number of a call -> what it is given beside tensors.
    """

    rows: dict[Digest, int] = field(default_factory=dict)
    columns: dict[Source, FeatureColumn] = field(default_factory=dict)
    results: dict[int, Any] = field(default_factory=dict)
    settings: dict[int, Any] = field(default_factory=dict)


class KeptFeatures:
    """The features that are kept.

    Args:
        capacity: the examples that are expected.
        allowance: the bytes that they may take.
    """

    def __init__(self, capacity: int, allowance: Allowance | None = None) -> None:
        self._capacity, self.allowance = capacity, allowance or Allowance()
        self._by_signature: dict[Any, Features] = {}

    def of(self, signature: Any) -> Features:
        """Returns the features of inputs with a signature, new ones if there are none."""
        return self._by_signature.setdefault(signature, Features())

    def rows_of(
        self, region: int, keys: Collection[Digest] | None = None
    ) -> dict[Digest, dict[Source, Tensor]]:
        """Returns what is kept of a region, or of some examples: digest -> output -> row."""
        return {
            key: {source: column.take([row])[0] for source, column in features.columns.items()}
            for signature, features in self._by_signature.items()
            if signature[0] == region
            for key, row in features.rows.items()
            if keys is None or key in keys
        }

    def column(self, features: Features, source: Source, like: Tensor) -> FeatureColumn:
        """Returns the column of an output, a new one if there is none."""
        if source not in features.columns:
            features.columns[source] = FeatureColumn(like, self._capacity, self.allowance)
        return features.columns[source]
