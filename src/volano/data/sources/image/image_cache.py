"""The cache of decoded images on disk: decoded once, then mapped. For folders larger than memory
and smaller than a disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from volano.data.sources.image.decoding import PixelFormat, decode
from volano.data.sources.in_threads import in_threads
from volano.errors import DataError

# The share of the free disk space that a cache may take; the rest is for checkpoints and for
# others.
MOST_OF_FREE_DISK = 0.5
_FORMAT_VERSION = 1
_PIXELS, _FAULTS = "pixels.npy", "faults.json"
# Errors of a file system that cannot reserve space; then pwrite finds out that a disk is full.
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class ImageCache:
    """The decoded pixels of files, uint8 [N, channels, size, size] in a .npy file, and which files
    could not be read.

    Both lie in a folder that is named by a digest of the files' names, sizes and times and of the
    pixel format: changed files are decoded again, into another folder. It appears when it is
    complete: if several processes write it at a time, all use the folder of the first one to end.

    Args:
        folder: the folder of caches.
        paths: paths of the images.
        pixel_format: the format to which they are decoded.

    Raises:
        DataError: the cache would take more than half of the disk's free space, or cannot be
            written or read.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], pixel_format: PixelFormat) -> None:
        self._folder = folder / _digest(paths, pixel_format)
        self._shape = (len(paths), pixel_format.channels, pixel_format.size, pixel_format.size)
        try:
            if not self._folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                _write(self._folder, paths, pixel_format, self._shape)
            faults = json.loads((self._folder / _FAULTS).read_text(encoding="utf-8"))
            self._faults: dict[int, str] = {int(row): text for row, text in faults.items()}
            self._open()
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(
                "The cache of decoded images must be readable and writable",
                got=f"{self._folder} ({_PIXELS} and {_FAULTS}): {error}",
                remedy="Remove that folder if it exists, and it is written again; or name "
                "one on another disk",
            ) from error

    def __getitem__(self, row: int) -> np.ndarray:
        """Returns one image, uint8 [channels, size, size].

        Raises:
            OSError: its file could not be decoded.
        """
        if row in self._faults:
            raise OSError(self._faults[row])
        return np.array(self._array[row])

    def __getstate__(self) -> dict[str, object]:
        return {"_folder": self._folder, "_shape": self._shape, "_faults": self._faults}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        array = np.load(self._folder / _PIXELS, mmap_mode="r")
        if array.shape != self._shape or array.dtype != np.uint8:
            raise ValueError(
                f"{array.dtype} {list(array.shape)} instead of uint8 {list(self._shape)}"
            )
        self._array = array


def _digest(paths: Sequence[Path], pixel_format: PixelFormat) -> str:
    digest = hashlib.sha256(f"{_FORMAT_VERSION}:{pixel_format}:{len(paths)}\n".encode())
    for path in paths:
        try:
            facts = path.stat()
            state = f"{facts.st_size}:{facts.st_mtime_ns}"
        except (OSError, ValueError):  # a name with a zero byte is a ValueError
            state = "missing"  # an unreadable file still has a row
        digest.update(os.fsencode(path) + f"\0{state}\0".encode())
    return digest.hexdigest()[:32]


def _write(
    folder: Path, paths: Sequence[Path], pixel_format: PixelFormat, shape: tuple[int, ...]
) -> None:
    num_bytes, free = int(np.prod(shape)), shutil.disk_usage(folder.parent).free
    if num_bytes > MOST_OF_FREE_DISK * free:
        raise DataError(
            f"A cache of decoded images may take at most {MOST_OF_FREE_DISK:.0%} of the free disk "
            "space",
            got=f"{num_bytes / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free in {folder.parent}",
            remedy="Name a folder on another disk, or choose a smaller `image_size`",
        )
    # A unique name, because processes of two containers may have the same number.
    with tempfile.TemporaryDirectory(
        prefix="partial-", dir=folder.parent, ignore_cleanup_errors=True
    ) as own:
        partial = Path(own, folder.name)  # within, because mkdtemp's folder is private
        partial.mkdir()
        reasons = _write_pixels(partial / _PIXELS, paths, pixel_format, shape)
        (partial / _FAULTS).write_text(json.dumps(reasons), encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster, and its folder stays
                raise


def _write_pixels(
    target: Path, paths: Sequence[Path], pixel_format: PixelFormat, shape: tuple[int, ...]
) -> dict[int, str]:
    """Decodes the files into a .npy file, and returns which rows stay empty and why."""
    # Written, not mapped: if the disk is full, writing to a mapping ends the process by SIGBUS, but
    # a write ends in an error.
    reasons: dict[int, str] = {}
    with target.open("xb") as file:
        npy_format.write_array_header_2_0(
            file,
            {
                "descr": npy_format.dtype_to_descr(np.dtype(np.uint8)),
                "fortran_order": False,
                "shape": shape,
            },
        )
        file.flush()
        start, num_bytes = file.tell(), int(np.prod(shape[1:]))
        _reserve(file.fileno(), start + num_bytes * len(paths))

        def decode_into(row: int) -> None:
            try:
                content = decode(paths[row], pixel_format).tobytes()
            except OSError as error:
                reasons[row] = str(error) or type(error).__name__
                return
            if os.pwrite(file.fileno(), content, start + row * num_bytes) != num_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        in_threads(decode_into, range(len(paths)))
    return reasons


def _reserve(descriptor: int, num_bytes: int) -> None:
    """Gives a file its length, and reserves its place on the disk if the system can, so that a full
    disk shows at once."""
    os.ftruncate(descriptor, num_bytes)
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
