"""Turns a decoded frame into bytes at the working size: upright, of square pixels, brought into a
square.

Shapes: C channels, S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from volano.data.sources.fitting import CUT, PAD, SQUEEZE

# Pixels further from square than so are an error of a header.
_MOST_STRETCHED = 8
# Entries of FFmpeg's display matrix, which maps columns and rows as stored to those shown
# (libavutil/display.h): (a, b, u, c, d, v, x, y, w).
_A, _B, _C, _D = 0, 1, 3, 4


@dataclass(frozen=True, kw_only=True)
class ClipFormat:
    """The format to which clips are decoded: ``channels`` 1 or 3, ``size`` the height and width in
    pixels, ``fps`` frames a second, ``fit`` how frames are brought into a square."""

    channels: int
    size: int
    fps: float
    fit: str = CUT


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """The way in which a frame is turned upright: rows and columns change places, then columns or
    rows are reversed."""

    is_transposed: bool = False
    mirrors_columns: bool = False
    mirrors_rows: bool = False

    @classmethod
    def of(cls, frame: Any) -> Orientation:
        """The orientation that a file states for a frame."""
        side_data = frame.side_data.get("DISPLAYMATRIX")
        stated = np.frombuffer(b"" if side_data is None else bytes(side_data), dtype=np.int32)
        if len(stated) < 9 or not stated[[_A, _B, _C, _D]].any():
            return cls()
        entries = stated.tolist()
        a, b, c, d = (entries[place] for place in (_A, _B, _C, _D))
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(mirrors_columns=a < 0, mirrors_rows=d < 0)
        return cls(is_transposed=True, mirrors_columns=c < 0, mirrors_rows=b < 0)

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Turns pixels [height, width, ...] as they are shown."""
        pixels = pixels.swapaxes(0, 1) if self.is_transposed else pixels
        return pixels[:: -1 if self.mirrors_rows else 1, :: -1 if self.mirrors_columns else 1]


def stretch_of(stream: Any) -> float:
    """Returns how wide a stream's pixels are in units of their height."""
    stated = stream.sample_aspect_ratio
    is_stated = stated and 1 / _MOST_STRETCHED <= stated <= _MOST_STRETCHED
    return float(stated) if is_stated else 1.0


def shown_size(frame: Any, stretch: float) -> tuple[int, int]:
    """Returns width and height of a frame as it is shown, in square pixels."""
    width, height = round(frame.width * stretch), frame.height
    return (height, width) if Orientation.of(frame).is_transposed else (width, height)


def pixels_of_frame(frame: Any, clip_format: ClipFormat, stretch: float) -> np.ndarray:
    """Scales a frame to uint8 [C, S, S]; ``stretch`` is what :func:`stretch_of` returns."""
    size, wide, high = clip_format.size, frame.width * stretch, frame.height
    width = height = size
    if clip_format.fit != SQUEEZE:
        side = min(wide, high) if clip_format.fit == CUT else max(wide, high)
        width, height = (max(1, round(one * size / side)) for one in (wide, high))
    if clip_format.fit == CUT:
        width, height = max(size, width), max(size, height)
    kind = "gray" if clip_format.channels == 1 else "rgb24"
    pixels = frame.reformat(
        width=width, height=height, format=kind, interpolation="AREA"
    ).to_ndarray()
    if clip_format.fit == PAD:
        top, left = (size - height) // 2, (size - width) // 2
        padded = np.zeros((size, size, *pixels.shape[2:]), dtype=np.uint8)
        padded[top : top + height, left : left + width] = pixels
        pixels = padded
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    pixels = Orientation.of(frame).upright(pixels[top : top + size, left : left + size])
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
