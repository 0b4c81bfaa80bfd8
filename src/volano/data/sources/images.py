"""Labelled images in memory, as bytes at one size; and the decoding that makes them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volano.data.fetch import Fault
from volano.data.quarantine import MAX_SHARE
from volano.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
# Larger pictures are scaled down: small nets from scratch gain little above it and pay for every pixel.
_LARGEST_AUTOMATIC_SIZE = 128
_NUM_SIZES_READ = 200


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images and their classes.

    Attributes:
        images: uint8 [N, channels, height, width].
        labels: int64 [N], indices into ``classes``.
        classes: names.
        names: of each image, for tables and errors.
        faults: files that could not be read, left out of the above.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    faults: tuple[Fault, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int] | np.ndarray) -> LabelledImages:
        """The images at ``indices``, in that order, without the faults."""
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return LabelledImages(
            images=self.images.index_select(0, rows),
            labels=self.labels.index_select(0, rows),
            classes=self.classes,
            names=tuple(self.names[row] for row in rows.tolist()),
        )


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One file and its class; ``label`` is None where it is not known."""

    path: Path
    label: int | None


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """To what files are decoded: ``channels`` 1 or 3, ``size`` the height and width in pixels."""

    channels: int
    size: int


def choose_format(files: Sequence[ImageFile], *, size: int | None = None) -> PixelFormat:
    """Channels and size that suit a set, read off the headers of some of its files.

    One channel if all of them are grey; the median of the shorter sides, at most 128, in steps of 8 above 32.
    """
    from PIL import Image

    step = max(1, len(files) // _NUM_SIZES_READ)
    sides: list[int] = []
    is_grey = True
    for file in files[::step]:
        try:
            with Image.open(file.path) as image:
                sides.append(min(image.size))
                is_grey = is_grey and image.mode in ("1", "L", "I", "I;16", "I;16B", "I;16L")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    if not sides:
        raise DataError(
            "Some of the images can be opened",
            got=f"none of the {len(files[::step])} tried, the first {files[0].path}",
            remedy="Look at one of the files",
        )
    if size is None:
        size = min(_LARGEST_AUTOMATIC_SIZE, int(statistics.median(sides)))
        if size > 32:
            size -= size % 8
    return PixelFormat(channels=1 if is_grey else 3, size=size)


def decode(path: Path, pixel_format: PixelFormat) -> np.ndarray:
    """A file's pixels, uint8 [channels, size, size]: upright, on white where transparent, cut to a centred square.

    Raises:
        OSError: the file cannot be read as an image (Pillow's own errors among them).
    """
    from PIL import Image, ImageOps

    side = pixel_format.size
    try:
        with Image.open(path) as opened:
            opened.draft(None, (side, side))  # JPEG decodes at 1/2, 1/4 or 1/8 where that is still large enough
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            if image.mode.startswith("I"):
                image = _in_bytes(image)
            elif image.mode == "F":
                raise OSError("floating-point pixels have no range of their own; save them as bytes")
            mode = "L" if pixel_format.channels == 1 else "RGB"
            if image.mode != mode:
                image = image.convert(mode)
            if image.size != (side, side):
                image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_all(
    files: Sequence[ImageFile],
    classes: tuple[str, ...],
    pixel_format: PixelFormat,
    *,
    root: Path,
    max_share: float = MAX_SHARE,
) -> LabelledImages:
    """All files decoded into memory, unreadable ones put aside.

    Raises:
        DataError: more than ``max_share`` are unreadable, or they do not fit into memory.
    """
    shape = (len(files), pixel_format.channels, pixel_format.size, pixel_format.size)
    _check_fits(shape)
    images = np.empty(shape, dtype=np.uint8)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes without the interpreter's lock
        outcomes = list(
            pool.map(lambda row: _decode_into(images, row, files[row].path, pixel_format), range(len(files)))
        )
    faults = tuple(
        Fault(row, str(files[row].path), reason) for row, reason in enumerate(outcomes) if reason is not None
    )
    _check_share(faults, len(files), max_share)
    good = [row for row, reason in enumerate(outcomes) if reason is None]
    return LabelledImages(
        images=torch.from_numpy(images if len(good) == len(files) else images[good]),
        labels=torch.tensor([-1 if (label := files[row].label) is None else label for row in good]),
        classes=classes,
        names=tuple(_relative(files[row].path, root) for row in good),
        faults=faults,
    )


def _check_share(faults: Sequence[Fault], num_files: int, max_share: float) -> None:
    if len(faults) > max_share * num_files:
        raise DataError(
            f"At most {max_share:.0%} of the images are unreadable",
            got=f"{len(faults)} of {num_files}; the first: {faults[0].path}: {faults[0].reason}",
            remedy="Mend or remove them",
        )


def listed(folder: Path) -> list[Path]:
    """Image files below a folder, sorted, hidden ones left out."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(names) if is_image(name)]
    return found


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted and without repetition; numbers in the order of numbers."""
    unique = set(names)
    if all(name.isdigit() for name in unique):
        return tuple(sorted(unique, key=int))
    return tuple(sorted(unique))


def _in_bytes(image: Any) -> Any:
    """A 16-bit picture (modes I;16 and I) as bytes: the upper eight bits, where any are set."""
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.max(initial=0) > 255:
        values >>= 8
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _decode_into(images: np.ndarray, row: int, path: Path, pixel_format: PixelFormat) -> str | None:
    try:
        images[row] = decode(path, pixel_format)
    except OSError as error:
        return str(error) or type(error).__name__
    return None


def _check_fits(shape: tuple[int, ...]) -> None:
    from volano.device import Device

    num_bytes, free = int(np.prod(shape)), Device("cpu").free_bytes()
    if free is not None and num_bytes > free // 2:
        raise DataError(
            "The decoded images take at most half of the free memory",
            got=f"{num_bytes / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free for {shape[0]:,} images of {shape[-1]} px",
            remedy="Choose a smaller --image-size",
        )


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
