"""Images that stay in their files and are decoded when they are asked for."""

from __future__ import annotations

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

from volano.data.sources.decoding import PixelFormat, decode
from volano.data.sources.image_cache import ImageCache

_NUM_DIGESTED = 64


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """What a tensor uint8 [N, channels, height, width] would be if it fitted into memory.

    Attributes:
        paths: of the files.
        pixel_format: to which they are decoded.
        cache: of their pixels, or None to decode them whenever they are asked for.
        rows: of each image in the cache.
    """

    paths: tuple[Path, ...]
    pixel_format: PixelFormat
    cache: ImageCache | None = None
    rows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """One image, uint8 [channels, height, width].

        Raises:
            OSError: the file cannot be read as an image.
        """
        if self.cache is not None:
            return torch.from_numpy(self.cache[self.rows[index]])
        return torch.tensor(decode(self.paths[index], self.pixel_format))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As a tensor's."""
        side = self.pixel_format.size
        return len(self.paths), self.pixel_format.channels, side, side

    def select(self, rows: Sequence[int]) -> ImageFiles:
        """The images at ``rows``, in that order; nothing is decoded."""
        places = tuple(self.rows[row] for row in rows) if self.cache is not None else ()
        return ImageFiles(tuple(self.paths[row] for row in rows), self.pixel_format, self.cache, places)

    def cached(self, folder: Path) -> ImageFiles:
        """The same images with a cache in ``folder``, which is made where it is not there yet.

        Raises:
            DataError: see :class:`ImageCache`.
        """
        cache = ImageCache(folder, self.paths, self.pixel_format)
        return ImageFiles(self.paths, self.pixel_format, cache, tuple(range(len(self.paths))))

    def copies(self) -> list[list[int]]:
        """All rows, those of files with the same content together. Only files of equal size are read."""
        by_size: dict[int, list[int]] = {}
        for row, path in enumerate(self.paths):
            by_size.setdefault(_size(path), []).append(row)
        groups: dict[Any, list[int]] = {}
        for size, rows in by_size.items():
            for row in rows:
                key = (size, row if len(rows) == 1 else _content(self.paths[row]))
                groups.setdefault(key, []).append(row)
        return sorted(groups.values())


class ImageFilesDataset(Dataset[Any]):
    """A map-style dataset of (image uint8 [channels, height, width], label int64 []) over files.

    Args:
        images: the files.
        labels: int64 [N].
    """

    def __init__(self, images: ImageFiles, labels: Tensor) -> None:
        self._images, self._labels = images, labels
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._images[index], self._labels[index]

    def path_of(self, index: int) -> str:
        """The file of an example, for the list of corrupt ones."""
        return str(self._images.paths[index])

    def fingerprint(self) -> str:
        """Digest of the format, the labels, the names and sizes of all files and the content of some."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"{self._images.pixel_format}".encode())
            digest.update(self._labels.numpy().tobytes())
            paths = self._images.paths
            root = os.path.commonpath([path.parent for path in paths])
            for path in paths:
                digest.update(f"{os.path.relpath(path, root)}:{_size(path)}\n".encode())
            for row in np.unique(np.linspace(0, len(paths) - 1, _NUM_DIGESTED).astype(np.int64)):
                digest.update(_content(paths[row]))
            self._fingerprint = digest.hexdigest()[:32]
        return self._fingerprint


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is quarantined when its turn comes
        return -1


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return str(path).encode()
