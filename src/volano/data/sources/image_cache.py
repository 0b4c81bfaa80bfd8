"""Decoded images on disk: decoded once, then mapped. For folders larger than memory and smaller than a disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from volano.data.sources.decoding import PixelFormat, decode
from volano.errors import DataError

# Of the free disk space a cache may take so much; the rest is for checkpoints and for others.
MOST_OF_FREE_DISK = 0.5


class ImageCache:
    """The decoded pixels of files, uint8 [N, channels, size, size] in a .npy file, and which files could not be read.

    It is named by a digest of the files' names, sizes and times and of the pixel format: changed files are decoded
    again, into another file.

    Args:
        folder: where caches lie.
        paths: of the images.
        pixel_format: to which they are decoded.

    Raises:
        DataError: it would take more than half of the disk's free space, or cannot be written or read.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], pixel_format: PixelFormat) -> None:
        name = _digest(paths, pixel_format)
        self._pixels, faults = folder / f"{name}.npy", folder / f"{name}.json"
        try:
            if not faults.exists():
                folder.mkdir(parents=True, exist_ok=True)
                _write(self._pixels, faults, paths, pixel_format)
            self._faults: dict[int, str] = {int(row): text for row, text in json.loads(faults.read_text()).items()}
            self._open()
        except (OSError, ValueError) as error:
            raise DataError(
                "A cache of decoded images can be written and read",
                got=f"{self._pixels}: {error}",
                remedy="Remove it, or name a folder on another disk",
            ) from error

    def __getitem__(self, row: int) -> np.ndarray:
        """One image, uint8 [channels, size, size].

        Raises:
            OSError: its file could not be decoded.
        """
        if row in self._faults:
            raise OSError(self._faults[row])
        return np.array(self._array[row])

    def __getstate__(self) -> dict[str, object]:
        return {"_pixels": self._pixels, "_faults": self._faults}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        self._array = np.load(self._pixels, mmap_mode="r")


def _digest(paths: Sequence[Path], pixel_format: PixelFormat) -> str:
    digest = hashlib.sha256(f"{pixel_format}".encode())
    for path in paths:
        with contextlib.suppress(OSError):
            facts = path.stat()
            digest.update(f"{path}:{facts.st_size}:{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _write(pixels: Path, faults: Path, paths: Sequence[Path], pixel_format: PixelFormat) -> None:
    shape = (len(paths), pixel_format.channels, pixel_format.size, pixel_format.size)
    num_bytes, free = int(np.prod(shape)), shutil.disk_usage(pixels.parent).free
    if num_bytes > MOST_OF_FREE_DISK * free:
        raise DataError(
            f"A cache of decoded images takes at most {MOST_OF_FREE_DISK:.0%} of the free disk space",
            got=f"{num_bytes / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free in {pixels.parent}",
            remedy="Name a folder on another disk, or choose a smaller --image-size",
        )
    partial = pixels.with_suffix(f".partial-{os.getpid()}")
    try:
        array = open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        reasons: dict[int, str] = {}

        def decode_into(row: int) -> None:
            try:
                array[row] = decode(paths[row], pixel_format)
            except OSError as error:
                reasons[row] = str(error) or type(error).__name__

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes without the interpreter's lock
            for _ in pool.map(decode_into, range(len(paths))):
                pass
        array.flush()
        partial.rename(pixels)
        faults.write_text(json.dumps(reasons))  # the last thing: what has no faults listed is not complete
    finally:
        partial.unlink(missing_ok=True)
