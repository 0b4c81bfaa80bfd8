"""Keeps what frozen modules have computed, example by example."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from volano.device import Device
from volano.training.prefix.feature_room import FeatureRoom, NoRoomError
from volano.training.prefix.frozen_value import Source
from volano.training.prefix.mapped_rows import MappedRows
from volano.training.prefix.row_digests import Digest

# Memory is taken in pieces of this size, so that filling needs no more than what is kept.
_PIECE_BYTES = 256 * 2**20


class ResidentRows:
    """The rows of one shape and type in memory; see :class:`MappedRows`."""

    def __init__(
        self, num_rows: int, shape: Sequence[int], like: Tensor, send: Callable[[Tensor], Tensor]
    ) -> None:
        self._rows = torch.empty(num_rows, *shape, dtype=like.dtype, device=like.device)
        self._send = send

    def put(self, first: int, rows: Tensor) -> None:
        """Writes rows from place ``first`` on."""
        self._rows[first : first + len(rows)].copy_(rows)

    def take(self, places: Tensor) -> Tensor:
        """Returns the rows at places int64 [N], a copy."""
        return self._rows.index_select(0, self._send(places))


class FeatureColumn:
    """A tensor that is kept, row by row.

    Args:
        like: the tensor of some rows, whose layout rows that are taken have as well.
        capacity: the most rows that are expected.
        room: of all columns.
        device: where the rows lie.

    Attributes:
        send: copies a tensor from the host to the device, without waiting for what is queued there.
    """

    def __init__(
        self, like: Tensor, capacity: int, room: FeatureRoom, device: Device | None = None
    ) -> None:
        self.send = (device or Device("cpu")).send
        strides = like.stride()
        order = sorted(range(like.ndim), key=lambda place: -strides[place])
        # The layout is kept (channels_last has another order of dimensions) if rows lie in one
        # piece; kernels round by it.
        self._order = order if order[0] == 0 else list(range(like.ndim))
        self._back = [self._order.index(place) for place in range(like.ndim)]
        self._shape = [like.shape[place] for place in self._order[1:]]
        self._like, self._room = like.new_empty(0), room
        self._row_bytes = max(1, like[:1].numel() * like.element_size())
        self._rows = max(1, min(capacity, _PIECE_BYTES // self._row_bytes))
        self._pieces: list[ResidentRows | MappedRows] = []

    def put(self, first: int, rows: Tensor) -> None:
        """Writes rows from place ``first`` on.

        Raises:
            NoRoomError: there is no room for them.
        """
        rows = rows.permute(self._order)
        done = 0
        while done < len(rows):
            piece, place = divmod(first + done, self._rows)
            while piece >= len(self._pieces):
                self._pieces.append(self._new_piece())
            count = min(self._rows - place, len(rows) - done)
            self._pieces[piece].put(place, rows[done : done + count])
            done += count

    def _new_piece(self) -> ResidentRows | MappedRows:
        if self._room.take(self._rows * self._row_bytes):
            return ResidentRows(self._rows, self._shape, self._like, self.send)
        try:
            return MappedRows(self._rows, self._shape, self._like, self._room.folder, self.send)
        except OSError as error:
            raise NoRoomError(f"what it computes cannot be written: {error}") from error

    def take(self, places: Sequence[int]) -> Tensor:
        """Returns the rows at places, a copy."""
        wanted = torch.tensor(places)
        if len(self._pieces) == 1:
            return self._pieces[0].take(wanted).permute(self._back)
        found = self._like.new_empty(len(places), *self._shape)
        of = wanted // self._rows
        for number in of.unique().tolist():
            mine = (of == number).nonzero()[:, 0]
            rows = self._pieces[number].take(wanted[mine] % self._rows)
            found.index_copy_(0, self.send(mine), rows)
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
        room: that they may take; None for all that there is.
        device: where they lie; None is the host.
    """

    def __init__(
        self, capacity: int, room: FeatureRoom | None = None, device: Device | None = None
    ) -> None:
        self._capacity, self.room, self._device = capacity, room or FeatureRoom(), device
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
            features.columns[source] = FeatureColumn(like, self._capacity, self.room, self._device)
        return features.columns[source]
