"""The format that suits a set of clips."""

import pytest

from clips import moving_square, write_clip
from volano.data.sources import choose_clip_format
from volano.data.sources.video.clip_format import LARGEST_AUTOMATIC_SIZE


def test_long_fast_clips_are_slowed(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_square(num_frames=300), fps=60)
    assert choose_clip_format([path], 16, size=None, fps=None)[0].fps == 15.0
    short = write_clip(tmp_path / "b.mp4", moving_square(num_frames=30), fps=60)
    assert choose_clip_format([short], 16, size=None, fps=None)[0].fps == 60.0


def test_large_frames_are_scaled_down(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_square(num_frames=4, size=(160, 120)))
    chosen, notices = choose_clip_format([path], 16, size=None, fps=None)
    assert chosen.size == LARGEST_AUTOMATIC_SIZE
    assert "160x120 are cut to a centred square" in notices[0]


@pytest.mark.parametrize("fit", ["cut", "pad", "squeeze"])
def test_what_is_far_from_square_is_said_if_it_is_cut(tmp_path, fit):
    for number in range(3):
        write_clip(tmp_path / f"{number}.mkv", moving_square(num_frames=4, size=(64, 36)))
    write_clip(tmp_path / "3.mkv", moving_square(num_frames=4, size=(40, 36)))
    paths = sorted(tmp_path.iterdir())
    chosen, notices = choose_clip_format(paths, 16, size=None, fps=None, fit=fit)
    assert chosen.fit == fit
    is_said = any("3 of 4 clips looked at lose more than a quarter" in text for text in notices)
    assert is_said == (fit == "cut")


def test_one_clip_in_colour_among_many_in_grey_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("volano.data.sources.video.clip_format._NUM_FACTS_READ", 2)
    for number in range(6):
        colour = (250, 20, 20) if number == 4 else (255,) * 3
        write_clip(tmp_path / f"{number}.mkv", moving_square(num_frames=4, colour=colour))
    paths = sorted(tmp_path.iterdir())
    assert choose_clip_format(paths, 4, size=None, fps=None)[0].channels == 3
    chosen, notices = choose_clip_format(paths, 4, size=None, fps=None, channels=1)
    assert chosen.channels == 1
    assert "clips in colour are read in grey, as the run's are" in notices
    paths[4].write_bytes(b"broken")
    chosen, notices = choose_clip_format(paths, 4, size=None, fps=None)
    assert chosen.channels == 1
    assert "no colour in the 6 clips looked at: all are read in grey" in notices
