"""The images that stay in their files and are decoded when they are asked for."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from volano.data.sources.image.decoding import PixelFormat, decode
from volano.data.sources.image.image_cache import ImageCache
from volano.data.sources.split_record import grouped

_NUM_DIGESTED = 64
_NUM_MIDDLE_BYTES = 4096  # the beginnings of pictures are headers, which are often equal


@dataclass(frozen=True)
class ImageFiles:
    """The images of files, used like a tensor uint8 [N, channels, height, width] that would not fit
    into memory.

    Attributes:
        paths: paths of the files.
        pixel_format: the format to which they are decoded.
        cache: cache of their pixels, or None to decode them whenever they are asked for.
        rows: row of each image in the cache.
    """

    paths: tuple[Path, ...]
    pixel_format: PixelFormat
    cache: ImageCache | None = None
    rows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Returns one image, uint8 [channels, height, width].

        Raises:
            OSError: the file cannot be read as an image.
        """
        if self.cache is not None:
            return torch.from_numpy(self.cache[self.rows[index]])
        return torch.tensor(decode(self.paths[index], self.pixel_format))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape, as a tensor's."""
        side = self.pixel_format.size
        return len(self.paths), self.pixel_format.channels, side, side

    def select(self, rows: Sequence[int]) -> ImageFiles:
        """Returns the images at ``rows``, in that order; nothing is decoded."""
        places = tuple(self.rows[row] for row in rows) if self.cache is not None else ()
        return ImageFiles(
            tuple(self.paths[row] for row in rows), self.pixel_format, self.cache, places
        )

    def cached(self, folder: Path) -> ImageFiles:
        """Returns the same images with a cache in ``folder``, which is made if it does not exist
        yet.

        Raises:
            DataError: see :class:`ImageCache`.
        """
        cache = ImageCache(folder, self.paths, self.pixel_format)
        return ImageFiles(self.paths, self.pixel_format, cache, tuple(range(len(self.paths))))

    def copies(self) -> list[list[int]]:
        """Returns all rows, those of files with the same content together; see
        :func:`copies_of`."""
        return copies_of(self.paths)

    @functools.cached_property
    def digest(self) -> bytes:
        """The digest of the format, the names and sizes of all files and the content of some. Taken
        once: it asks for every file, and several tasks are made from the same images."""
        digest = hashlib.sha256(f"{self.pixel_format}:{len(self)}\n".encode())
        root = os.path.commonpath([path.parent for path in self.paths])
        for path in self.paths:
            digest.update(os.fsencode(os.path.relpath(path, root)) + f"\0{_size(path)}\0".encode())
        for row in np.unique(np.linspace(0, len(self) - 1, _NUM_DIGESTED).astype(np.int64)):
            digest.update(_content(self.paths[row]))
        return digest.digest()


class ImageFilesDataset(Dataset[Any]):
    """A map-style dataset of (image uint8 [channels, height, width], label int64 []) over files.

    Args:
        images: the files.
        labels: int64 [N].
    """

    def __init__(self, images: ImageFiles, labels: Tensor) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._images[index], self._labels[index]

    def path_of(self, index: int) -> str:
        """Returns the file of an example, for the list of corrupt ones."""
        return str(self._images.paths[index])

    def fingerprint(self) -> str:
        """Returns a digest of the labels and the images; see :attr:`ImageFiles.digest`."""
        return hashlib.sha256(self._images.digest + self._labels.numpy().tobytes()).hexdigest()[:32]


def copies_of(paths: Sequence[Path]) -> list[list[int]]:
    """Returns the places of all files, those of files with the same content together.

    All files of a folder may have the same size (bitmaps, a data set cut to tiles). So files of
    equal size are compared by 4 KiB from their middle, and only those that are equal there too are
    read whole.
    """
    groups = [list(range(len(paths)))]
    for key in (_size, _middle, _content):
        groups = [
            [rows[place] for place in part]
            for rows in groups
            for part in ([[0]] if len(rows) == 1 else grouped(key(paths[row]) for row in rows))
        ]
    return sorted(groups)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # it is quarantined when its turn comes
        return -1


def _middle(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _NUM_MIDDLE_BYTES) // 2)
            return file.read(_NUM_MIDDLE_BYTES)
    except (OSError, ValueError):
        return os.fsencode(path)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except (OSError, ValueError):
        return os.fsencode(path)
