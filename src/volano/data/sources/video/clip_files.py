"""The clips on disk: a file's own facts, and its frames as bytes at a working size and rate.

Shapes: F frames, C channels, S pixels a side.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volano.data.sources.folders import walk
from volano.data.sources.image.decoding import decoded_as_ppm
from volano.data.sources.video.clip_pixels import (
    ClipFormat,
    pixels_of_frame,
    shown_size,
    stretch_of,
)
from volano.data.sources.video.clip_times import (
    LONGEST_STILL_SECONDS,
    nearest_frames,
    num_moments,
    on_one_line,
    usual_seconds,
)
from volano.errors import DataError, needs_package

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
# FFmpeg's readers of such files. It chooses by the content: others would take a text for a
# playlist, and open the files that stand there.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,avi,gif,matroska,webm,mpeg,mpegvideo,mpegts,mpegtsraw,m4v,h264,hevc,"
    "ogg,asf,flv,live_flv,png_pipe,jpeg_pipe,bmp_pipe,webp_pipe,tiff_pipe,ppm_pipe,pgm_pipe,"
    "apng,mjpeg,ivf,dv,nut,yuv4mpegpipe"
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
# A last frame that its file shows for so many frames' time is shown as long as that.
_STANDS_STILL = 1.5
# Formats whose headers state how long the clip is meant to be; others are estimated from sizes.
_STATING_LENGTH = ("matroska", "mov", "avi")
_LEAST_MISSING_SHARE = 0.05


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


class ClipBudget:
    """A counter of the bytes of clips, over all threads, against half of the memory that was free
    at first."""

    def __init__(self) -> None:
        from volano.device import Device

        free = Device("cpu").free_bytes()
        self.limit = None if free is None else free // 2
        self.used, self._lock = 0, threading.Lock()

    def add(self, num_bytes: int) -> None:
        """Raises DataError if the limit is passed."""
        with self._lock:
            self.used += num_bytes
        if self.limit is not None and self.used > self.limit:
            raise DataError(
                "The decoded clips may take at most half of the free memory",
                got=f"more than {self.limit / 2**30:.1f} GiB",
                remedy="Choose a smaller `image_size` or `fps`, or fewer `frames`",
            )


def read_facts(path: Path) -> ClipFacts:
    """Reads size, rate and kind of a file.

    Raises:
        OSError: the file cannot be decoded; the text says why.
    """
    with _opened(path) as (container, stream):
        first = next(_good_frames(container, stream), None)
        if first is None:
            raise OSError("it holds no frames")
        width, height = shown_size(first, stretch_of(stream))
        fps = _rate(stream)
        seconds = _stated_seconds(container)
        num_frames = stream.frames or max(1, round(seconds * fps))
        return ClipFacts(
            width=width,
            height=height,
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
            itertools.islice(_good_frames(container, stream), _MOST_LOOKED_AT)
        ):
            if number % _LOOK_EVERY == 0:
                yield frame
        if num_frames <= _MOST_LOOKED_AT or not container.duration:
            return
        middle = (container.start_time or 0) + container.duration // 2
        container.seek(middle)
        found = None
        for found in itertools.islice(_good_frames(container, stream), _MOST_SKIPPED):
            if found.time is not None and found.time * 1_000_000 >= middle:  # av.time_base
                break
        if found is not None:
            yield found


def decode_clip(
    path: Path,
    clip_format: ClipFormat,
    *,
    budget: ClipBudget | None = None,
    said: list[str] | None = None,
) -> np.ndarray:
    """Decodes a file's frames, uint8 [F, C, S, S]: upright, of square pixels, brought into a
    square, at the working rate. Each moment gets the frame that is nearest in time.

    Args:
        path: path of the file.
        clip_format: the format to which it is decoded.
        budget: counts the bytes before they are taken; None is one for this file.
        said: gets what is wrong with the file, in words.

    Raises:
        OSError: the file cannot be decoded, or holds no good frames; the text says why.
        DataError: it would take too much memory.
    """
    budget = budget or ClipBudget()
    pictures: list[np.ndarray] = []
    times: list[float] = []
    damage: list[str] = []
    last = None
    with _opened(path) as (container, stream):
        fps, stretch = _rate(stream), stretch_of(stream)
        for frame in _frames(container, stream):
            if isinstance(frame, str):
                damage.append(frame)
                continue
            pictures.append(pixels_of_frame(frame, clip_format, stretch))
            times.append(float(frame.time) if frame.time is not None else len(times) / fps)
            budget.add(pictures[-1].nbytes)
            last = frame
        if last is None:
            raise OSError(damage[0] if damage else "it holds no frames")
        usual = usual_seconds(times, fps)
        line, num_set = on_one_line(times, usual)
        last_rate = _last_rate(last, 1 / usual)
        num_missing = len(damage)
        if not num_set:  # the header's length counts by the same clock
            num_missing = max(num_missing, _num_cut_off(container, stream, line, fps, last_rate))
    if said is not None and num_missing:
        said.append(f"{num_missing:,} frames are missing, {len(pictures):,} are good")
    if said is not None and num_set:
        said.append(f"the clock of its frames jumps {num_set:,} times, and is read without jumps")
    budget.add((num_moments(line, last_rate, clip_format.fps) - len(pictures)) * pictures[0].nbytes)
    return np.stack([pictures[row] for row in nearest_frames(line, last_rate, clip_format.fps)])


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a file and yields its container and video stream, with FFmpeg's errors as OSError."""
    av = _import_av()
    try:
        # As a file whatever its name: FFmpeg takes "http:x" and "concat:x" for addresses.
        name = f"file:{path.absolute()}"
        if path.suffix.lower() in PICTURE_SUFFIXES:  # FFmpeg takes a "%d" in it for a number
            name = decoded_as_ppm(path)
        only = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        with av.open(name, options=only) as container:
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
    with needs_package("Clips are decoded by PyAV", "av"):
        import av
    return av


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Yields the frames in the order in which they are shown, and for each packet or frame that is
    damaged a text that says why. Those after it are decoded as far as they can be."""
    av = _import_av()
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                yield error.strerror or type(error).__name__
                continue
            for frame in frames:
                yield "a damaged frame" if frame.is_corrupt else frame
    except av.error.FFmpegError as error:  # nothing behind it can be read
        yield error.strerror or type(error).__name__


def _good_frames(container: Any, stream: Any) -> Iterator[Any]:
    return (frame for frame in _frames(container, stream) if not isinstance(frame, str))


def _rate(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else _RATE_OF_A_PICTURE


def _last_rate(frame: Any, fps: float) -> float:
    """Returns one over the seconds for which the last frame is shown."""
    seconds = float(frame.duration * frame.time_base) if frame.duration else 0.0
    is_still = _STANDS_STILL / fps < seconds <= LONGEST_STILL_SECONDS
    return 1 / seconds if is_still else fps


def _stated_seconds(container: Any) -> float:
    """Returns how long a file lasts by its header, in which Matroska counts from the zero of its
    clock and not from the first frame."""
    first = container.start_time if container.format.name.startswith("matroska") else 0
    return max(0, (container.duration or 0) - max(0, first or 0)) / 1_000_000  # av.time_base


def _num_cut_off(
    container: Any, stream: Any, line: np.ndarray, fps: float, last_rate: float
) -> int:
    """Returns about how many frames are missing at the end, by the length that the header
    states."""
    if not container.format.name.startswith(_STATING_LENGTH):
        return 0
    if stream.duration:
        stated = float(stream.duration * stream.time_base)
    elif len(container.streams) == 1:
        stated = _stated_seconds(container)
    else:  # that of its sound
        return 0
    missing = stated - float(line[-1]) - 1 / last_rate
    return round(missing * fps) if missing > _LEAST_MISSING_SHARE * stated else 0
