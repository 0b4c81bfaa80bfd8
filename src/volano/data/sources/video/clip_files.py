"""The clips on disk: a file's own facts, and its frames as bytes at a working size and rate.

Shapes: F frames, C channels, S pixels a side.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volano.data.sources.folders import walk
from volano.errors import MissingExtraError

SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".avi",
        ".gif",
        ".webm",
        ".mkv",
        ".mpg",
        ".mpeg",
        ".ogv",
        ".wmv",
        ".flv",
        ".ts",
        ".3gp",
    }
)
# Suffixes of pictures that may be the first frame of a clip.
PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
# YUV 4:2:0 rounds chroma; grey clips come back with channels up to this far apart.
_GREY_SPREAD = 10
# Number of frames at the start of which every eighth is checked for colour. In longer files one in
# the middle is checked too, if it is found within so many frames of one where a decoder can begin.
_MOST_LOOKED_AT, _LOOK_EVERY, _MOST_SKIPPED = 64, 8, 128
# The rate of files without one of their own (a picture, a raw stream).
_RATE_OF_A_PICTURE = 10.0
# Rates this close count as one rate: 29.97 is 30000/1001, and cameras drift.
_SAME_RATE = 0.01


@dataclass(frozen=True, kw_only=True)
class ClipFormat:
    """The format to which clips are decoded: ``channels`` 1 or 3, ``size`` the height and width in
    pixels, ``fps`` frames a second."""

    channels: int
    size: int
    fps: float


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """The facts from a file's header and some of its frames: pixels, frames a second, about how
    many frames, whether all checked frames are grey."""

    width: int
    height: int
    fps: float
    num_frames: int
    is_grey: bool


def is_clip(name: str) -> bool:
    """Checks whether a file's name is that of a clip."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def listed_clips(folder: Path, runs: set[Path]) -> list[Path]:
    """Returns the clips below a folder, sorted, hidden ones left out. Folders of runs are added to
    ``runs`` instead."""
    return [
        parent / name for parent, names in walk(folder, runs) for name in names if is_clip(name)
    ]


def read_facts(path: Path) -> ClipFacts:
    """Reads size, rate and kind of a file.

    Raises:
        OSError: the file cannot be decoded; the text says why.
    """
    with _opened(path) as (container, stream):
        first = next(_frames(container, stream), None)
        if first is None:
            raise OSError("it holds no frames")
        pixels = _upright(first, first.to_ndarray(format="rgb24"))
        fps = _rate(stream)
        seconds = float(container.duration or 0) / 1_000_000  # av.time_base
        num_frames = stream.frames or max(1, round(seconds * fps))
        return ClipFacts(
            width=pixels.shape[1],
            height=pixels.shape[0],
            fps=fps,
            num_frames=num_frames,
            is_grey=_is_grey(first)
            and all(map(_is_grey, _some_frames(container, stream, num_frames))),
        )


def _is_grey(frame: Any) -> bool:
    return (
        int(np.ptp(frame.to_ndarray(format="rgb24").astype(np.int16), axis=2).max()) <= _GREY_SPREAD
    )


def _some_frames(container: Any, stream: Any, num_frames: int) -> Iterator[Any]:
    """Yields frames after the first one, which has been read: some of those that follow, and one
    about in the middle."""
    av = _import_av()
    # Damage is found when the file is decoded; formats without an index cannot jump.
    with suppress(av.error.FFmpegError):
        for number, frame in enumerate(
            itertools.islice(_frames(container, stream), _MOST_LOOKED_AT)
        ):
            if number % _LOOK_EVERY == 0:
                yield frame
        if num_frames <= _MOST_LOOKED_AT or not container.duration:
            return
        middle = (container.start_time or 0) + container.duration // 2
        container.seek(middle)
        found = None
        for found in itertools.islice(_frames(container, stream), _MOST_SKIPPED):
            if found.time is not None and found.time * 1_000_000 >= middle:  # av.time_base
                break
        if found is not None:
            yield found


def decode_clip(path: Path, clip_format: ClipFormat) -> np.ndarray:
    """Decodes a file's frames, uint8 [F, C, S, S]: upright, cut to a centred square, at the working
    rate.

    If the working rate differs from the file's, each moment gets the frame that is nearest in time.

    Raises:
        OSError: the file cannot be decoded, or holds no frames; the text says why.
    """
    pictures: list[np.ndarray] = []
    times: list[float] = []
    with _opened(path) as (container, stream):
        fps = _rate(stream)
        for frame in _frames(container, stream):
            pictures.append(_scaled(frame, clip_format))
            times.append(float(frame.time) if frame.time is not None else len(times) / fps)
    if not pictures:
        raise OSError("it holds no frames")
    frames = np.stack(pictures)
    if abs(fps - clip_format.fps) <= _SAME_RATE * clip_format.fps:
        return frames
    return frames[nearest_frames(np.array(times), fps, clip_format.fps)]


def nearest_frames(times: np.ndarray, fps: float, wanted_fps: float) -> np.ndarray:
    """Returns the indices int64 [F'] of the frames nearest to the moments ``k / wanted_fps``, over
    as long as the clip lasts.

    Args:
        times: times of its frames, in seconds, ascending [F].
        fps: the file's rate: its last frame is shown for ``1 / fps`` seconds.
        wanted_fps: the rate to have.
    """
    times = times - times[0]
    count = max(1, math.floor((times[-1] + 1 / fps) * wanted_fps + 0.5))
    moments = np.arange(count) / wanted_fps
    right = np.searchsorted(times, moments).clip(1, max(1, len(times) - 1))
    if len(times) == 1:
        return np.zeros(count, dtype=np.int64)
    left = right - 1
    return np.where(moments - times[left] < times[right] - moments, left, right)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a file and yields its container and video stream, with FFmpeg's errors as OSError."""
    av = _import_av()
    try:
        # As a file whatever its name: FFmpeg takes "http:x" and "concat:x" for addresses. And what
        # the file's content leads to must not lie on a network.
        name = f"file:{path.absolute()}"
        with av.open(name, options={"protocol_whitelist": "file"}) as container:
            if not container.streams.video:
                raise OSError("it holds no pictures that move")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise OSError("this FFmpeg has no decoder for its codec")
            stream.thread_type = "AUTO"
            yield container, stream
    except av.error.DecoderNotFoundError as error:
        raise OSError(f"this FFmpeg has no decoder for its codec ({error.strerror})") from error
    except av.error.FFmpegError as error:
        raise OSError(error.strerror or type(error).__name__) from error
    except (ValueError, EOFError, MemoryError) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            "Clips are decoded by PyAV",
            got=f"it cannot be imported ({error})",
            remedy="pip install av",
        ) from error
    return av


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    yield from container.decode(stream)


def _rate(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else _RATE_OF_A_PICTURE


def _upright(frame: Any, pixels: np.ndarray) -> np.ndarray:
    """Turns a frame upright, as the camera was held: ``frame.rotation`` is in degrees,
    counter-clockwise."""
    # Older PyAV does not report it.
    return np.rot90(pixels, k=round(getattr(frame, "rotation", 0) / 90) % 4)


def _scaled(frame: Any, clip_format: ClipFormat) -> np.ndarray:
    """Scales a frame to uint8 [C, S, S]: the shorter side scaled to S, the centre kept."""
    size, shorter = clip_format.size, min(frame.width, frame.height)
    width, height = (
        max(size, round(side * size / shorter)) for side in (frame.width, frame.height)
    )
    kind = "gray" if clip_format.channels == 1 else "rgb24"
    pixels = frame.reformat(
        width=width, height=height, format=kind, interpolation="AREA"
    ).to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    pixels = _upright(frame, pixels[top : top + size, left : left + size])
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
