"""Writes clips as files that people can look at: mp4, gif, and still pictures of their frames.

Shapes: N clips, T frames, C channels (1 or 3), S pixels a side; bytes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from volano.errors import RunError
from volano.record.files import written

# Encoders in the order of preference: H.264 plays in every browser, MPEG-4 part 2 in players.
_ENCODERS = (("libx264", {"crf": "18"}), ("mpeg4", {"qscale:v": "3"}))
MOST_SIDE_BY_SIDE, MOST_IN_GRID = 64, 8
_LEAST_PIXELS = 256  # small clips are enlarged, pixel by pixel, to about so many
_FASTEST_GIF = 50  # frames a second; browsers slow down what claims to be faster
_LONGEST_DELAY = 655_350  # milliseconds; hundredths of a second in 16 bits
_GAP = 2
_BACKGROUND = 64


def tiled(clips: np.ndarray) -> np.ndarray:
    """Arranges up to 64 clips uint8 [N, T, C, S, S] side by side as one, uint8 [T, H, W, 3],
    enlarged by whole numbers."""
    clips = clips[:MOST_SIDE_BY_SIDE]
    count, frames, _, size, _ = clips.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    pitch = size + _GAP
    canvas = np.full(
        (frames, rows * pitch + _GAP, columns * pitch + _GAP, 3), _BACKGROUND, dtype=np.uint8
    )
    for number, clip in enumerate(clips):
        top, left = _GAP + number // columns * pitch, _GAP + number % columns * pitch
        canvas[:, top : top + size, left : left + size] = clip.transpose(0, 2, 3, 1)
    return _enlarged(canvas)


def enlarged(clip: np.ndarray) -> np.ndarray:
    """Returns one clip uint8 [T, C, S, S] as uint8 [T, H, W, 3], enlarged by a whole number to
    about 256 pixels."""
    return _enlarged(np.broadcast_to(clip.transpose(0, 2, 3, 1), (len(clip), *clip.shape[2:], 3)))


def write_gif(frames: np.ndarray, path: Path, *, fps: float) -> str | None:
    """Writes an animation that repeats; frames uint8 [T, H, W, 3]. A gif's delays are whole
    hundredths of a second.

    Returns:
        The compromise that was made, in words; None if there was none.
    """
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    delay = min(max(1000 // _FASTEST_GIF, 10 * round(100 / fps)), _LONGEST_DELAY)
    with _written(path) as partial:
        pictures[0].save(partial, save_all=True, append_images=pictures[1:], duration=delay, loop=0)
    if fps <= _FASTEST_GIF:
        return None
    return (
        f"{path.name} plays at {_FASTEST_GIF} frames a second instead of {fps:g}: browsers "
        "show none that are faster"
    )


def write_mp4(frames: np.ndarray, path: Path, *, fps: float) -> str | None:
    """Writes an mp4 of frames uint8 [T, H, W, 3], by H.264 if there is an encoder for it, else by
    MPEG-4.

    Returns:
        The compromise that was made, in words; None if there was none. Without any encoder no file
        is written.
    """
    try:
        import av
        import av.error
        from av.codec.codec import UnknownCodecError
    except ImportError as error:
        return f"no mp4: PyAV cannot be imported ({error})"
    for encoder, options in _ENCODERS:
        try:
            av.Codec(encoder, "w")
        except (av.error.FFmpegError, UnknownCodecError):  # the latter is a ValueError
            continue
        with _written(path, av.error.FFmpegError) as partial:
            _encode(av, encoder, options, frames, partial, fps)
        if encoder == _ENCODERS[0][0]:
            return None
        return (
            f"{path.name} is MPEG-4 part 2, which browsers do not play: this FFmpeg has no "
            "encoder for H.264"
        )
    return "no mp4: this FFmpeg has no encoder for it"


def write_grid(clips: np.ndarray, path: Path) -> Path:
    """Writes a still picture: a row for each of the first clips, its frames from left to
    right."""
    return _save_picture(_strip(clips[:MOST_IN_GRID]), path)


def write_predictions(real: np.ndarray, predicted: np.ndarray, path: Path) -> Path:
    """Writes a still picture of four clips: real frames above those predicted from the first ones,
    which stand again at the left.

    real uint8 [N, T, C, S, S]; predicted uint8 [N, T - K, C, S, S].
    """
    context = real.shape[1] - predicted.shape[1]
    whole = np.concatenate([real[:, :context], predicted], axis=1)
    pairs = np.stack([real[:4], whole[:4]], axis=1).reshape(-1, *real.shape[1:])
    return _save_picture(_strip(pairs, gap_before=context, gap_every=2), path)


def _save_picture(pixels: np.ndarray, path: Path) -> Path:
    from PIL import Image

    with _written(path) as partial:
        Image.fromarray(_enlarged(pixels)).save(partial)
    return path


def _strip(clips: np.ndarray, *, gap_before: int | None = None, gap_every: int = 1) -> np.ndarray:
    """Arranges rows of frames, uint8 [H, W, 3]; a wider gap before a column, and after every so
    many rows."""
    count, frames, _, size, _ = clips.shape
    wide = 3 * _GAP
    lefts = [
        _GAP + number * (size + _GAP) + (wide if gap_before and number >= gap_before else 0)
        for number in range(frames)
    ]
    tops = [
        _GAP + number * (size + _GAP) + number // gap_every * (wide if gap_every > 1 else 0)
        for number in range(count)
    ]
    canvas = np.full(
        (tops[-1] + size + _GAP, lefts[-1] + size + _GAP, 3), _BACKGROUND, dtype=np.uint8
    )
    for top, clip in zip(tops, clips, strict=True):
        for left, frame in zip(lefts, clip, strict=True):
            canvas[top : top + size, left : left + size] = frame.transpose(1, 2, 0)
    return canvas


def _enlarged(pictures: np.ndarray) -> np.ndarray:
    """Enlarges [.., H, W, 3] by a whole number, so that the smaller side has about 256 pixels or
    more."""
    factor = max(1, round(_LEAST_PIXELS / min(pictures.shape[-3:-1])))
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def _encode(
    av: Any, encoder: str, options: dict[str, str], frames: np.ndarray, path: Path, fps: float
) -> None:
    # Chroma of 4:2:0 needs even sides.
    height, width = (side - side % 2 for side in frames.shape[1:3])
    # An absolute path: FFmpeg takes a relative one such as "http:/x" for an address.
    with av.open(str(path.absolute()), "w") as container:
        stream = container.add_stream(
            encoder, rate=Fraction(fps).limit_denominator(1000), options=options
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels[:height, :width]), format="rgb24"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@contextlib.contextmanager
def _written(path: Path, *errors: type[Exception]) -> Iterator[Path]:
    """A context like :func:`written`; raises RunError for the system's errors and some others."""
    try:
        with written(path) as partial:
            yield partial
    except (OSError, *errors) as error:
        raise RunError(
            "The clip's file must be writable",
            got=f"{path}: {error}",
            remedy="Make room, or give another `out`",
        ) from error
