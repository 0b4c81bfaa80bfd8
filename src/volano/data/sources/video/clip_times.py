"""The times of a clip's frames: on one line, and which frame each moment gets.

Clocks in files are set again, wrap around (those of MPEG after 26.5 hours) and state anything. So
how many moments a clip has is known before memory for them is taken.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np

# A frame that stands longer, or a time that lies further back, is a clock that was set.
LONGEST_STILL_SECONDS, _FURTHEST_BACK_SECONDS = 60.0, 0.5
# Files round the times of their frames.
_SAME_RATE = 0.1


def usual_seconds(times: Sequence[float], fps: float) -> float:
    """Returns the seconds for which a frame is shown, as most of them are; ``fps`` is the rate that
    the file states, which may have little to do with them."""
    gaps = [now - before for before, now in itertools.pairwise(times)]
    gaps = [gap for gap in gaps if 0 < gap <= LONGEST_STILL_SECONDS]
    usual = statistics.median(gaps) if gaps else 1 / fps
    return 1 / fps if abs(usual * fps - 1) <= _SAME_RATE else usual


def on_one_line(times: Sequence[float], usual: float) -> tuple[np.ndarray, int]:
    """Returns the times of frames in seconds from the first on, ascending [F], and at how many
    places the clock was set: there the next frame follows after ``usual`` seconds."""
    line, shift, num_set = [0.0], -times[0], 0
    for before, now in itertools.pairwise(times):
        if not -_FURTHEST_BACK_SECONDS <= now - before <= LONGEST_STILL_SECONDS:
            shift = line[-1] + usual - now
            num_set += 1
        line.append(max(line[-1], now + shift))
    return np.array(line), num_set


def num_moments(times: np.ndarray, fps: float, wanted_fps: float) -> int:
    """Returns the number of moments ``k / wanted_fps`` in a clip; see :func:`nearest_frames`."""
    return max(1, math.floor((times[-1] - times[0] + 1 / fps) * wanted_fps + 0.5))


def nearest_frames(times: np.ndarray, fps: float, wanted_fps: float) -> np.ndarray:
    """Returns the indices int64 [F'] of the frames nearest to the moments ``k / wanted_fps``, over
    as long as the clip lasts.

    Args:
        times: times of its frames, in seconds, ascending [F].
        fps: the file's rate: its last frame is shown for ``1 / fps`` seconds.
        wanted_fps: the rate to have.
    """
    count = num_moments(times, fps, wanted_fps)
    if len(times) == 1:
        return np.zeros(count, dtype=np.int64)
    moments, times = np.arange(count) / wanted_fps, times - times[0]
    right = np.searchsorted(times, moments).clip(1, len(times) - 1)
    left = right - 1
    return np.where(moments - times[left] < times[right] - moments, left, right)
