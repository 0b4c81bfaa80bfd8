"""Times on one line, and the nearest frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.data.sources.video.clip_times import (
    nearest_frames,
    num_moments,
    on_one_line,
    usual_seconds,
)


@given(st.integers(1, 40), st.floats(1, 60), st.floats(1, 60))
def test_nearest_frames_are_nearest(num, fps, wanted):
    times = np.arange(num) / fps
    chosen = nearest_frames(times, fps, wanted)
    moments = np.arange(len(chosen)) / wanted
    assert (np.diff(chosen) >= 0).all()
    best = np.abs(times[None] - moments[:, None]).min(1)
    assert np.abs(times[chosen] - moments) == pytest.approx(best, abs=1e-9)
    assert abs(len(chosen) / wanted - num / fps) <= 0.5 / wanted + 1 / wanted


@pytest.mark.parametrize(
    ("times", "line", "num_set"),
    [
        ([5.0, 5.1, 5.2], [0, 0.1, 0.2], 0),
        ([0.0, 0.1, 95443.7, 95443.8], [0, 0.1, 0.2, 0.3], 1),  # a jump
        ([95443.6, 95443.7, 0.0, 0.1], [0, 0.1, 0.2, 0.3], 1),  # a clock that wraps around
        ([0.0, 0.1, 0.05, 0.2], [0, 0.1, 0.1, 0.2], 0),  # frames in another order
        ([0.0, 59.0, 60.0], [0, 59, 60], 0),  # a still
        ([3.0], [0], 0),
    ],
)
def test_times_are_put_on_one_line(times, line, num_set):
    found, count = on_one_line(times, 0.1)
    assert found == pytest.approx(line)
    assert count == num_set


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30), st.floats(0.1, 240))
def test_whatever_times_a_file_states_its_length_is_bounded(times, fps):
    line, _ = on_one_line(times, usual_seconds(times, fps))
    assert (np.diff(line) >= 0).all()
    assert num_moments(line, fps, 10.0) <= 10 * (60 * len(times) + 1 / fps) + 1


@pytest.mark.parametrize(
    ("times", "fps", "seconds"),
    [
        ([0.0, 0.033, 0.067, 0.1], 30.0, 1 / 30),  # rounded to milliseconds
        ([0.0, 0.5, 1.0, 9.0], 30.0, 0.5),  # a header that states another rate
        ([1.0], 25.0, 0.04),
        ([2.0, 1.0], 25.0, 0.04),
    ],
)
def test_how_long_a_frame_is_shown(times, fps, seconds):
    assert usual_seconds(times, fps) == pytest.approx(seconds)
