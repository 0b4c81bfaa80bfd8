"""Decodes files to pixels, and chooses their size and channels."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volano.errors import DataError

# Larger pictures are scaled down: small networks trained from scratch gain little above this size
# and pay for every pixel.
_LARGEST_AUTOMATIC_SIZE = 128
_NUM_SIZES_READ = 200


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """A file and its class; ``label`` is None if it is not known."""

    path: Path
    label: int | None


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """The format to which files are decoded: ``channels`` 1 or 3, ``size`` the height and width in
    pixels."""

    channels: int
    size: int


def choose_format(files: Sequence[ImageFile], *, size: int | None = None) -> PixelFormat:
    """Chooses channels and size that suit a set, from the headers of some of its files.

    One channel if all of them are grey; the median of the shorter sides, at most 128, in steps of 8
    above 32.
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
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - as in decode
            continue
    if not sides:
        raise DataError(
            "Some of the images must be readable",
            got=f"none of the {len(files[::step])} tried, the first {files[0].path}",
            remedy="Look at one of the files",
        )
    if size is None:
        size = min(_LARGEST_AUTOMATIC_SIZE, int(statistics.median(sides)))
        if size > 32:
            size -= size % 8
    return PixelFormat(channels=1 if is_grey else 3, size=size)


def decode(path: Path, pixel_format: PixelFormat) -> np.ndarray:
    """Returns a file's pixels, uint8 [channels, size, size]: upright, on white where transparent,
    cut to a centred square.

    Raises:
        OSError: the file cannot be read as an image, whichever error Pillow raises.
    """
    from PIL import Image

    side = pixel_format.size
    with _any_error_as_unreadable(), Image.open(path) as opened:
        # JPEG decodes at 1/2, 1/4 or 1/8 if that is still large enough.
        opened.draft(None, (side, side))
        return pixels_of(opened, pixel_format)


def pixels_of(picture: Any, pixel_format: PixelFormat) -> np.ndarray:
    """Returns the pixels of an opened picture as :func:`decode` does.

    Raises:
        OSError: the picture cannot be brought into the format.
    """
    from PIL import Image, ImageOps

    side = pixel_format.size
    with _any_error_as_unreadable():
        image = ImageOps.exif_transpose(picture)
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
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextlib.contextmanager
def _any_error_as_unreadable() -> Iterator[None]:
    """Turns any error into an OSError: damaged EXIF and TIFF directories end in struct.error,
    KeyError, TypeError, ZeroDivisionError and others."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _in_bytes(image: Any) -> Any:
    """Returns a 16-bit picture (modes I;16 and I) as bytes: the upper eight bits, if any are
    set."""
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.max(initial=0) > 255:
        values >>= 8
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))
