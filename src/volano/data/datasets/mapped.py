"""The arrays larger than memory: ``.npy`` files that are mapped, not read."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from volano.data.arrays import Arrays, plain_indexing
from volano.errors import DataError, TaskError
from volano.task import Batch, map_tensors

# A file up to this size is digested whole; of a larger file so many blocks of this size are, evenly
# spread.
_WHOLE_BYTES, _NUM_BLOCKS, _BLOCK_BYTES = 64 * 2**20, 256, 64 * 2**10
_SHORT_ROW_BYTES = 64 * 2**10


class _Extent(NamedTuple):
    """The position of the rows of a mapped file: row ``i`` is ``length`` bytes from ``first + step
    * i`` on."""

    mapping: mmap.mmap
    first: int
    step: int
    length: int
    usual_advice: int


class MemoryMapped(Arrays):
    """A map-style dataset over ``.npy`` files that stay on disk; a batch reads its rows and nothing
    else.

    ``numpy.save`` writes such files, ``numpy.lib.format.open_memmap`` writes them piece by piece.

    Args:
        paths: a file, or tuples, lists or dicts of files whose arrays are equally long; examples
            have the same shape.
        window: for one-dimensional arrays (a stream of tokens): an example is ``window``
            consecutive values.
        stride: distance from one window's start to the next; None stands for ``window``. A language
            model that predicts each token from those before it takes ``window=context + 1,
            stride=context``.

    Raises:
        DataError: a file is missing, damaged, or not an array of plain numbers in C order.
        TaskError: the lengths differ, or a window is invalid.
    """

    def __init__(self, paths: Any, *, window: int | None = None, stride: int | None = None) -> None:
        if window is None and stride is not None:
            raise TaskError(
                "`stride` is the distance of windows, so it needs `window`",
                got=f"stride={stride} without a window",
            )
        self.paths, self.window = _as_paths(paths), window
        self.stride = window if stride is None else stride
        for name in ("window", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TaskError(f"`{name}` must be a whole number above 0", got=value)
        super().__init__(self._mapped())

    @plain_indexing
    def __getitem__(self, index: int) -> Any:
        # A copy: the mapping cannot be written to, and an example belongs to the caller.
        return map_tensors(lambda tensor: tensor[index].clone(), self.tree)

    def __getstate__(self) -> dict[str, Any]:
        # Another process gets the data's place, not the data.
        return {
            name: value for name, value in self.__dict__.items() if name not in ("tree", "_extents")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.tree = self._mapped()

    def fingerprint(self) -> str:
        """Returns a digest of types, shapes and windows, and of the content: all of it up to 64 MiB
        a file, 256 blocks of 64 KiB of a larger one, so that it takes seconds for terabytes. A
        change between the blocks is not seen."""
        digest = hashlib.sha256(f"{self.window},{self.stride}".encode())
        for path in _files(self.paths):
            array = _open(path)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            _digest_blocks(digest, array.reshape(-1).view(np.uint8))
        return digest.hexdigest()[:32]

    def announce(self, indices: Tensor) -> None:
        """Tells the kernel which rows (int64 [rows]) are read next: it fetches them side by side,
        not one by one."""
        for extent in self._extents:
            for start in (extent.first + extent.step * indices).tolist():
                page = start - start % mmap.PAGESIZE
                extent.mapping.madvise(mmap.MADV_WILLNEED, page, start + extent.length - page)

    @contextlib.contextmanager
    def in_sequence(self) -> Iterator[None]:
        """Tells the kernel that the files are read from one end to the other: it reads far ahead
        then."""
        for extent in self._extents:
            extent.mapping.madvise(mmap.MADV_SEQUENTIAL)
        try:
            yield
        finally:
            for extent in self._extents:
                extent.mapping.madvise(extent.usual_advice)

    def _mapped(self) -> Batch:
        self._extents: list[_Extent] = []
        return _map_paths(self._map_one, self.paths)

    def _map_one(self, path: Path) -> Tensor:
        array = _open(path)
        tensor = self._windows(_as_tensor(array), path)
        if (
            isinstance(array.base, mmap.mmap)
            and hasattr(array.base, "madvise")
            and tensor.ndim
            and len(tensor)
        ):
            first = array.offset % mmap.ALLOCATIONGRANULARITY  # pyright: ignore[reportAttributeAccessIssue] - a memmap
            step, length = tensor.stride(0) * tensor.itemsize, tensor[0].numel() * tensor.itemsize
            self._extents.append(_Extent(array.base, first, step, length, _usual_advice(array)))
        return tensor

    def _windows(self, tensor: Tensor, path: Path) -> Tensor:
        if self.window is None:
            return tensor
        assert self.stride is not None
        if tensor.ndim != 1:
            raise TaskError(
                "A window needs a one-dimensional array",
                got=f"{path} of shape {tuple(tensor.shape)}",
            )
        if len(tensor) < self.window:
            raise TaskError(
                "An array must hold at least one window",
                got=f"{len(tensor)} values in {path} and window={self.window}",
                remedy="Take a smaller window",
            )
        num = (len(tensor) - self.window) // self.stride + 1
        return tensor.as_strided((num, self.window), (self.stride, 1))


def _as_paths(paths: Any) -> Any:
    if isinstance(paths, Mapping):
        return {name: _as_paths(value) for name, value in paths.items()}
    if isinstance(paths, tuple | list):
        return type(paths)(_as_paths(value) for value in paths)
    return Path(paths).absolute()


def _map_paths(function: Any, paths: Any) -> Any:
    if isinstance(paths, Mapping):
        return {name: _map_paths(function, value) for name, value in paths.items()}
    if isinstance(paths, tuple | list):
        return type(paths)(_map_paths(function, value) for value in paths)
    return function(paths)


def _files(paths: Any) -> list[Path]:
    found: list[Path] = []
    _map_paths(found.append, paths)
    return found


def _open(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            "A memory-mapped array must be a complete .npy file", got=f"{path}: {error}"
        ) from error
    if not isinstance(array, np.memmap):
        raise DataError(
            "A memory-mapped array must be a single .npy file", got=f"{path}, an archive of several"
        )
    if array.dtype.kind not in "biufc" or not array.dtype.isnative or not array.flags.c_contiguous:
        raise DataError(
            "A memory-mapped array must hold plain numbers, in this machine's byte order and in C "
            "order",
            got=f"{path} of type "
            f"{array.dtype.str}{'' if array.flags.c_contiguous else ' in Fortran order'}",
            remedy="Save numpy.ascontiguousarray(array) in a plain type",
        )
    return array


def _as_tensor(array: np.ndarray) -> Tensor:
    mapping = array.base
    if isinstance(mapping, mmap.mmap) and hasattr(mapping, "madvise"):
        mapping.madvise(_usual_advice(array))
    # Mapped for reading only: a private writable mapping would count against the process's data
    # limit. Nothing writes to it: batches and examples are copies.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        try:
            return torch.from_numpy(array)
        except TypeError as error:
            raise DataError(
                "A memory-mapped array must have a type that torch knows", got=array.dtype.str
            ) from error


def _usual_advice(array: np.ndarray) -> int:
    # Otherwise the kernel reads megabytes around each row, and under a memory limit evicts rows to
    # make room for them: measured, 62 GB read in 100 s to train on 1.6 GB. For long rows the
    # kernel's own reading ahead is better.
    row_bytes = array.nbytes // max(1, len(array)) if array.ndim else 0
    return mmap.MADV_RANDOM if row_bytes <= _SHORT_ROW_BYTES else mmap.MADV_NORMAL


def _digest_blocks(digest: Any, content: np.ndarray) -> None:
    if content.nbytes <= _WHOLE_BYTES:
        digest.update(content.data)
        return
    for start in np.linspace(0, content.nbytes - _BLOCK_BYTES, _NUM_BLOCKS).astype(np.int64):
        digest.update(content[start : start + _BLOCK_BYTES].data)
