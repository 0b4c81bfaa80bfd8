"""Chooses the format that suits a set of clips, and says what that does to them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from volano.data.sources.fitting import CUT, IN_WORDS, shape_notices
from volano.data.sources.in_threads import in_threads
from volano.data.sources.video.clip_files import ClipFacts, read_facts
from volano.data.sources.video.clip_pixels import ClipFormat
from volano.errors import DataError

# Larger frames are scaled down: every pixel costs time at every frame, and small models make soft
# pictures anyway.
LARGEST_AUTOMATIC_SIZE = 64
# Clips that last longer than so many windows are reduced to this rate: 16 frames at 60 a second
# show no motion.
_LONG_WINDOWS, _CALM_FPS = 4, 15.0
# Whatever headers state; as for the option.
_LEAST_FPS, _MOST_FPS = 0.1, 240.0
_NUM_FACTS_READ = 50


def choose_clip_format(
    paths: Sequence[Path],
    num_frames: int,
    *,
    size: int | None,
    fps: float | None,
    channels: int | None = None,
    fit: str = CUT,
) -> tuple[ClipFormat, tuple[str, ...]]:
    """Chooses channels, size and rate that suit a set, as given or read off some of its files; and
    says in words what that does to them.

    Raises:
        DataError: none of the files can be opened.
    """
    facts: list[ClipFacts] = []
    reason = ""
    for path in paths[:: max(1, len(paths) // _NUM_FACTS_READ)]:
        try:
            facts.append(read_facts(path))
        except OSError as error:
            reason = reason or f"{path}: {error}"
    if not facts:
        raise DataError(
            "Some of the clips must be readable",
            got=f"none of those tried; {reason}",
            remedy="Mend them",
        )
    if size is None:
        size = min(
            LARGEST_AUTOMATIC_SIZE,
            int(statistics.median(min(one.width, one.height) for one in facts)),
        )
        size = max(8, size - size % 8)
    if fps is None:
        fps = statistics.median(one.fps for one in facts)
        seconds = statistics.median(one.num_frames / one.fps for one in facts)
        if fps > _CALM_FPS and seconds * _CALM_FPS >= _LONG_WINDOWS * num_frames:
            fps = _CALM_FPS
    fps = min(max(fps, _LEAST_FPS), _MOST_FPS)
    # One clip in colour among thousands in grey is read in colour.
    are_grey = all(one.is_grey for one in facts) and (channels == 3 or _are_grey(paths))
    said = _loss_of_colour(len(paths), channels, are_grey=are_grey)
    chosen = ClipFormat(
        channels=channels or (1 if are_grey else 3), size=size, fps=round(float(fps), 3), fit=fit
    )
    return chosen, (*_what_changes(facts, size, fps, fit), *said)


def _are_grey(paths: Sequence[Path]) -> bool:
    if len(paths) < 2 * _NUM_FACTS_READ:  # each was looked at
        return True
    return all(in_threads(_is_grey, paths))


def _is_grey(path: Path) -> bool:
    try:
        return read_facts(path).is_grey
    except OSError:  # which is said when it is decoded
        return True


def _loss_of_colour(num_clips: int, asked: int | None, *, are_grey: bool) -> tuple[str, ...]:
    if asked is None:
        said = f"no colour in the {num_clips} clips looked at: all are read in grey"
    else:
        said = "clips in colour are read in grey, as the run's are"
    return (said,) if asked != 3 and are_grey == (asked is None) else ()


def _what_changes(facts: list[ClipFacts], size: int, fps: float, fit: str) -> tuple[str, ...]:
    sizes = sorted({(one.width, one.height) for one in facts})
    rates = sorted({round(one.fps, 2) for one in facts})
    notices = []
    if sizes != [(size, size)]:
        seen = " and ".join(f"{w}x{h}" for w, h in sizes)
        seen = seen if len(sizes) <= 2 else f"{len(sizes)} sizes"
        notices.append(f"frames of {seen} are {IN_WORDS[fit]} to {size} pixels")
    notices += shape_notices([(one.width, one.height) for one in facts], fit, "clips looked at")
    if any(abs(rate - fps) > 0.01 * fps for rate in rates):
        span = f"{rates[0]:g}" if len(rates) == 1 else f"{rates[0]:g} to {rates[-1]:g}"
        notices.append(f"clips of {span} frames a second are resampled to {fps:g}")
    return tuple(notices)
