"""The token ids in a file, read in place, and windows over them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from volano.data.arrays import Arrays
from volano.errors import CheckpointError, DataError
from volano.record.files import open_regular

# Ids travel as int16, which torch indexes on every device; so many ids fit.
MOST_TOKENS = 2**15
_BYTES_AT_ONCE = 2**24


def write_tokens(path: Path, pieces: Iterable[np.ndarray]) -> int:
    """Writes pieces of ids, uint16, one behind the other as one ``.npy``, however many there are.

    Returns:
        The number of ids that were written.
    """
    count = 0
    with path.open("wb") as file:
        _write_header(file, 0)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype="<u2").data)
            count += len(piece)
        file.seek(0)
        # NumPy leaves room for longer numbers, so the header keeps its length.
        _write_header(file, count)
    return count


def open_tokens(path: Path) -> np.ndarray:
    """Opens ids uint16 [N], mapped into memory, read-only.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        open_regular(path).close()  # a pipe would never end
        tokens = np.lib.format.open_memmap(path, mode="r")
        if tokens.ndim != 1 or tokens.dtype != np.dtype("<u2"):
            raise ValueError(f"{tokens.dtype} {list(tokens.shape)}, not uint16 of one dimension")
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError("A run's tokens must be readable", got=f"{path}: {error}") from error
    return tokens


class TokenWindows(Arrays):
    """The overlapping windows of ``2 * context`` ids, int16 [windows, 2 * context]; window ``i``
    begins at id ``i * context``. They are views of the mapped file: nothing is copied before a
    batch is made.

    A crop of ``context + 1`` ids at a random offset below ``context`` (see ``RandomOffsets``) then
    begins anywhere in the text with equal probability, and an epoch passes over each part of it
    about once.

    Args:
        tokens: ids uint16 [N].
        context: number of tokens that a model sees.

    Raises:
        DataError: there are fewer ids than one window takes.
    """

    def __init__(self, tokens: np.ndarray, context: int) -> None:
        if len(tokens) < 2 * context:
            raise DataError(
                "The training text must fill one window of twice the context",
                got=f"{len(tokens):,} tokens and a context of {context}",
                remedy="Give more text or a smaller `context`",
            )
        self._tokens = tokens
        ids = as_tensor(tokens)
        super().__init__(ids.as_strided((len(tokens) // context - 1, 2 * context), (context, 1)))

    def fingerprint(self) -> str:
        """Returns a digest of the ids and of how they are cut."""
        digest = hashlib.sha256(f"windows{self.tree.shape[1]}".encode())
        raw = self._tokens.view(np.uint8)
        for start in range(0, len(raw), _BYTES_AT_ONCE):
            digest.update(np.ascontiguousarray(raw[start : start + _BYTES_AT_ONCE]).data)
        return digest.hexdigest()[:32]


def as_tensor(tokens: np.ndarray) -> Tensor:
    """Returns ids uint16 as int16 on the same memory; they are below ``MOST_TOKENS``. It is only
    ever read."""
    view = tokens.view(np.int16)
    if view.flags.writeable:
        return torch.from_numpy(view)
    import warnings

    with warnings.catch_warnings():  # torch has no read-only tensors and warns about it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(view)


def scoring_windows(tokens: np.ndarray, context: int, stride: int) -> tuple[Tensor, Tensor]:
    """Returns fixed windows that predict every id but the first exactly once.

    Returns:
        Ids int16 [windows, context + 1], the last window filled up with zeros; and for each window
        the first of its ``context`` targets that counts, int16 [windows]: 0 for the first window,
        ``context - stride`` for the others, so that each of their targets has at least that many
        ids before it.
    """
    num = 1 + max(0, -(-(len(tokens) - 1 - context) // stride))
    padded = np.zeros((num - 1) * stride + context + 1, dtype=np.uint16)
    padded[: len(tokens)] = tokens
    ids = torch.from_numpy(padded.view(np.int16)).as_strided((num, context + 1), (stride, 1))
    first = torch.full((num,), context - stride, dtype=torch.int16)
    first[0] = 0
    return ids, first


def _write_header(file: BinaryIO, count: int) -> None:
    header = {"descr": "<u2", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
