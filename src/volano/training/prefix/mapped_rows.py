"""The rows of a file that is mapped into memory: for what does not fit there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from volano.data import MemoryMapped
from volano.training.prefix.row_digests import bytes_of_rows


class MappedRows:
    """The rows of one shape and type in a file, of which some are read at a time. It has no name
    when this is made, so that it goes with the process, however that ends.

    Args:
        num_rows: the rows for which there is room.
        shape: the shape of a row.
        like: a tensor of the type, on the device, of rows that are taken.
        folder: where the file lies.
        send: copies a tensor to the device.

    Raises:
        OSError: the folder cannot be written, or its disk is full.
    """

    def __init__(
        self, num_rows: int, shape: Sequence[int], like: Tensor, folder: Path,
        send: Callable[[Tensor], Tensor],
    ) -> None:  # fmt: skip
        self._shape, self._dtype, self._send = shape, like.dtype, send
        row_bytes = int(np.prod(shape)) * like.element_size()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix="features-", dir=folder, ignore_cleanup_errors=True
        ) as place:
            path = Path(place, "rows.npy")
            written = np.lib.format.open_memmap(
                path, mode="w+", dtype=np.uint8, shape=(num_rows, row_bytes)
            )
            if hasattr(os, "posix_fallocate"):  # a disk that is full later would end the process
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            self._written, self._read = torch.from_numpy(written), MemoryMapped(path)

    def put(self, first: int, rows: Tensor) -> None:
        """Writes rows from place ``first`` on."""
        self._written[first : first + len(rows)].copy_(bytes_of_rows(rows))

    def take(self, places: Tensor) -> Tensor:
        """Returns the rows at places int64 [N], a copy on the device."""
        self._read.announce(places)
        found = self._read.tree.index_select(0, places).view(self._dtype)
        return self._send(found.view(len(places), *self._shape))
