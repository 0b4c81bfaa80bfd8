"""Decodes files to pixels, and chooses their size, channels and range.

Pixels of more than 8 bits become bytes by one rule for a whole set, ``PixelFormat.pixel_range``:
whatever a picture holds itself, equal values become equal bytes.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volano.data.sources.fitting import CUT, SQUEEZE, choose_fit, shape_notices
from volano.data.sources.image.image_names import picture_formats
from volano.data.sources.in_threads import in_threads
from volano.errors import DataError
from volano.record.files import is_there, nearest_there
from volano.record.format import count_text

# Larger pictures are scaled down: small networks trained from scratch gain little above this size
# and pay for every pixel.
_LARGEST_AUTOMATIC_SIZE = 128
_NUM_SIZES_READ = 200
# The most pixels that a header may state, which is Pillow's own bound: a file of a few bytes can
# state any number.
_MOST_PIXELS = 178_956_970
# The ends of what cameras and scanners write in 16 bits: 8, 10, 12, 14 and 16 of them.
_ENDS = (255, 1023, 4095, 16383, 65535)
# Values that fill a smaller share of these are spread over their own range instead: of 256 bytes
# they would use fewer than 32.
_LEAST_FILLED = 1 / 8
BILINEAR = "bilinear"
_FLAT = ("1", "L", "LA", "La")
# Containers of several pictures in which they are frames or pages of one work.
_WITH_FRAMES = ("GIF", "WEBP", "PNG", "TIFF", "AVIF", "HEIF", "FLI", "DCX")
# How a picture is turned upright, by EXIF's tag Orientation (CIPA DC-008, 4.6.4).
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """A file and its class; ``label`` is None if it is not known."""

    path: Path
    label: int | None


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """The format to which files are decoded: ``channels`` 1 or 3, ``size`` the height and width in
    pixels, ``pixel_range`` the values of 16-bit, 32-bit and floating-point pixels that become 0 and
    255. None takes the type's own range, which 32-bit and floating-point pixels don't have. ``fit``
    is how a picture that is no square becomes one, ``interpolation`` Pillow's name of the method
    that brings it to its size."""

    channels: int
    size: int
    pixel_range: tuple[float, float] | None = None
    fit: str = CUT
    interpolation: str = BILINEAR

    def __repr__(self) -> str:
        # Digests of caches and data hold this text: that of a set of bytes, cut, stays as it was.
        scaled = "" if self.pixel_range is None else f", pixel_range={self.pixel_range}"
        fitted = "" if self.fit == CUT else f", fit={self.fit}"
        method = "" if self.interpolation == BILINEAR else f", {self.interpolation}"
        return f"PixelFormat(channels={self.channels}, size={self.size}{scaled}{fitted}{method})"


@dataclass(frozen=True, kw_only=True)
class WantedFormat:
    """The wishes for the format of a set; what is left open is read off its files.

    Attributes:
        size: height and width in pixels.
        own_size: the size that a pretrained network takes, if ``size`` is None: files are decoded
            to it. Pixels that are stored as arrays keep theirs.
        pixel_range: the range of pixels of more than 8 bits that was chosen the first time; None
            looks at all values.
        fit: how files that are no squares become some.
        own_fit: the way of a pretrained network, if ``fit`` is None; None of one that states none,
            which is chosen by the files' shapes.
        interpolation: the method by which files are brought to their size.
    """

    size: int | None = None
    own_size: int | None = None
    pixel_range: tuple[float, float] | None = None
    fit: str | None = None
    own_fit: str | None = CUT
    interpolation: str = BILINEAR


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The facts in a file's header, and the least and the largest of its values if they are more
    than bytes."""

    path: Path
    is_damaged: bool  # what stands beside its pixels
    size: tuple[int, int]
    mode: str
    has_frames: bool
    is_deep_colour: bool
    is_sixteen_bits: bool
    values: tuple[float, float] | None


ANY_FORMAT = WantedFormat()


def choose_format(
    files: Sequence[ImageFile], wanted: WantedFormat = ANY_FORMAT, *, said: list[str] | None = None
) -> PixelFormat:
    """Chooses channels, size and range that suit a set, from the headers of all of its files.

    One channel if all of them are grey; the median of the shorter sides of some, at most 128, in
    steps of 8 above 32; the range of all pixels of more than 8 bits.

    Args:
        files: the files of the set.
        wanted: what is not to be chosen.
        said: gets what a person should know of it, in words.

    Raises:
        DataError: none of the files can be read.
    """
    with _warnings_heard():
        headers = in_threads(lambda file: _look(file.path, wanted.pixel_range is None), files)
    step = max(1, len(files) // _NUM_SIZES_READ)
    found = [header for header in headers if header is not None]
    if not found:
        first = files[0].path
        raise DataError(
            "Some of the images must be readable",
            got=f"none of the {len(files)} tried, the first {first}: {_why_unreadable(first)}",
            remedy=(None if is_there(first) else nearest_there(first)) or "Look at one of them",
        )
    size = wanted.size or wanted.own_size
    if size is None:
        sides = [min(header.size) for header in headers[::step] if header is not None]
        sides = sides or [min(header.size) for header in found]
        size = min(_LARGEST_AUTOMATIC_SIZE, int(statistics.median(sides)))
        if size > 32:
            size -= size % 8
    stated = wanted.fit or wanted.own_fit
    fit, squeezed = choose_fit(stated, [header.size for header in found], "images")
    chosen = PixelFormat(
        channels=1 if all(one.mode in _FLAT or is_deep(one.mode) for one in found) else 3,
        size=size,
        pixel_range=wanted.pixel_range or _range_of(found),
        fit=fit,
        interpolation=wanted.interpolation,
    )
    if said is not None:
        said += [*squeezed, *_in_words(found, chosen)]
    return chosen


def is_deep(mode: str) -> bool:
    """Checks whether Pillow's mode is one of 16-bit, 32-bit or floating-point pixels."""
    return mode[:1] in ("I", "F")


def _look(path: Path, looks_at_values: bool) -> _Header | None:
    """Returns the facts of a file; None if it cannot be read, which is said when it is decoded."""
    before = _heard.num_warnings
    try:
        with _opened(path) as image:
            rawmodes = [
                part[0] if isinstance(part, tuple) else part for _, _, _, part in image.tile
            ]
            return _Header(
                path=path,
                is_damaged=_has_damaged_exif(image) or _heard.num_warnings > before,
                size=image.size,
                mode=image.mode,
                has_frames=image.format in _WITH_FRAMES and getattr(image, "is_animated", False),
                is_deep_colour=image.mode in ("RGB", "RGBA", "LA") and "16" in str(rawmodes),
                is_sixteen_bits=";16" in image.mode or image.format in ("PNG", "PPM"),
                values=_ends_of(image) if looks_at_values and is_deep(image.mode) else None,
            )
    except OSError:
        return None


def _has_damaged_exif(image: Any) -> bool:
    """Checks the EXIF in a header; in other formats it stands behind the pixels. Pillow raises what
    is wrong with it once, and may have done so."""
    from PIL import Image

    try:
        Image.Exif().load(image.info.get("exif") or b"")
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as of any damaged directory
        return True
    return False


class _Heard(threading.local):
    """The number of Pillow's warnings in this thread."""

    num_warnings = 0


_heard = _Heard()


@contextlib.contextmanager
def _warnings_heard() -> Iterator[None]:
    """A context in which Pillow's warnings of any thread are counted and not printed, but for those
    of large pictures. What other modules warn of is shown."""
    picture_formats()  # it sets a filter for the whole process
    with warnings.catch_warnings():
        show = warnings.showwarning

        def hear(message: Any, category: Any, filename: str, *others: Any, **named: Any) -> None:
            if "PIL" not in Path(filename).parts:
                show(message, category, filename, *others, **named)
            elif issubclass(category, UserWarning):
                _heard.num_warnings += 1

        warnings.filterwarnings("always", module=r"PIL\.")
        warnings.showwarning = hear
        yield


def _why_unreadable(path: Path) -> str:
    try:
        with _opened(path):
            return "it holds no pixels"
    except OSError as error:
        return error.strerror or str(error)


def _ends_of(image: Any) -> tuple[float, float] | None:
    values = np.asarray(image)
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None


def _range_of(headers: Sequence[_Header]) -> tuple[float, float] | None:
    """Returns the range of a set: 0 to the end of the bits that hold it if all are of 16 bits and
    fill an eighth of that; otherwise from its least to its largest value."""
    deep = [header for header in headers if header.values is not None]
    if not deep:
        return None
    ends = [header.values for header in deep if header.values is not None]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if all(header.is_sixteen_bits for header in deep):
        end = next(end for end in _ENDS if high <= end)
        if high - low >= _LEAST_FILLED * end:
            return 0.0, float(end)
    return (low, high) if high > low else (low, low + 1)


def _in_words(headers: Sequence[_Header], chosen: PixelFormat) -> list[str]:
    num_deep = sum(is_deep(header.mode) for header in headers)
    num_frames = sum(header.has_frames for header in headers)
    num_colour = sum(header.is_deep_colour for header in headers)
    damaged = [header.path for header in headers if header.is_damaged]
    said = shape_notices([header.size for header in headers], chosen.fit, "images")
    if num_deep and chosen.pixel_range is not None:
        low, high = chosen.pixel_range
        said.append(
            f"{num_deep:,} images hold pixels of more than 8 bits: values of {low:g} to {high:g} "
            "become 0 to 255, in all of them alike"
        )
    if num_colour:
        said.append(
            f"{num_colour:,} images in colour or with transparency, of 16 bits, are read by their "
            "upper 8 bits"
        )
    if num_frames:
        said.append(f"{num_frames:,} images hold several frames or pages: the first one is read")
    if damaged:
        said.append(
            f"damaged metadata, such as EXIF, is left out of {count_text(len(damaged), 'image')}, "
            f"the first {damaged[0]}, with what it may say of which way is up"
        )
    return said


def decode(path: Path, pixel_format: PixelFormat) -> np.ndarray:
    """Returns a file's pixels, uint8 [channels, size, size]: upright, on white where transparent,
    brought into a square; the first of several frames.

    Raises:
        OSError: the file cannot be read as an image, whichever error Pillow raises, or its header
            states more pixels than any camera takes.
    """
    side = pixel_format.size
    with _opened(path) as opened:
        # JPEG decodes at 1/2, 1/4 or 1/8 if that is still large enough.
        opened.draft(None, (side, side))
        return pixels_of(opened, pixel_format)


def decoded_as_ppm(path: Path) -> io.BytesIO:
    """Returns a file's pixels in their own size and in colour, as a file in memory that every
    reader knows: upright, on white where transparent; the first of several frames.

    Raises:
        OSError: as :func:`decode`.
    """
    file = io.BytesIO()
    with _opened(path) as opened, _any_error_as_unreadable():
        _upright(opened, "RGB", None).save(file, "PPM")
    file.seek(0)
    return file


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a file and yields the picture, whose header alone has been read."""
    from PIL import Image

    with _any_error_as_unreadable(), Image.open(path, formats=picture_formats()) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise Image.DecompressionBombError
        yield image


def pixels_of(picture: Any, pixel_format: PixelFormat) -> np.ndarray:
    """Returns the pixels of an opened picture as :func:`decode` does.

    Raises:
        OSError: the picture cannot be brought into the format.
    """
    with _any_error_as_unreadable():
        mode = "L" if pixel_format.channels == 1 else "RGB"
        image = _upright(picture, mode, pixel_format.pixel_range)
        pixels = np.asarray(_squared(image, pixel_format))
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _upright(picture: Any, mode: str, pixel_range: tuple[float, float] | None) -> Any:
    """Returns a picture as it is shown, in bytes."""
    from PIL import Image

    image = _turned(picture)
    if is_deep(image.mode):
        image = _in_bytes(image, pixel_range)
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _turned(picture: Any) -> Any:
    """Returns a picture turned as its EXIF says; one whose EXIF is damaged stays as it is stored,
    which other programs show as well."""
    from PIL import Image

    picture.load()
    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow raises anything of a damaged directory
        turn = None
    return picture if turn is None else picture.transpose(Image.Transpose[turn])


def _squared(image: Any, pixel_format: PixelFormat) -> Any:
    from PIL import Image, ImageOps

    sides = (pixel_format.size, pixel_format.size)
    method = Image.Resampling[pixel_format.interpolation.upper()]
    if image.size == sides:
        return image
    if pixel_format.fit == SQUEEZE:
        return image.resize(sides, method)
    fit = ImageOps.fit if pixel_format.fit == CUT else ImageOps.pad
    return fit(image, sides, method)


@contextlib.contextmanager
def _any_error_as_unreadable() -> Iterator[None]:
    """Turns any error into an OSError: damaged EXIF and TIFF directories end in struct.error,
    KeyError, TypeError, ZeroDivisionError and others."""
    from PIL import Image

    try:
        yield
    except (OSError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise OSError(
            f"its header states more pixels than an image may have, {_MOST_PIXELS:,}"
        ) from error
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _in_bytes(image: Any, pixel_range: tuple[float, float] | None) -> Any:
    """Returns a picture of 16-bit, 32-bit or floating-point pixels as bytes; what its header calls
    transparent is white, and what is no number black."""
    from PIL import Image

    stored = np.asarray(image)
    low, high = pixel_range or _range_of_type(stored)
    # 16 bits fit into fp32 exactly; 32 bits do not.
    values = stored.astype(np.float32 if stored.dtype.itemsize == 2 else np.float64)
    values -= low
    values *= 255 / (high - low)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    pixels = np.rint(values.clip(0, 255)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        pixels[stored == transparent] = 255
    return Image.fromarray(pixels)


def _range_of_type(stored: np.ndarray) -> tuple[float, float]:
    if stored.dtype.kind == "f":
        raise OSError(
            "floating-point pixels have no range of their own, and the set that was trained on has "
            "none either; save them as bytes"
        )
    # Older versions of Pillow read 16 bits into 32.
    if stored.dtype.itemsize > 2 and (stored.min(initial=0) < 0 or stored.max(initial=0) > 65535):
        raise OSError(
            "32-bit pixels have no range of their own, and the set that was trained on has none "
            "either; save them as bytes"
        )
    return 0.0, 65535.0
