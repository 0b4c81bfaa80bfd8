"""What the options of a training ask of clips reaches their reader, and what was read is said."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from volano.apps.video import clip_sets
from volano.apps.video.clip_sets import clips_in_words, read_clips
from volano.apps.video.options import VideoOptions
from volano.data.sources import ClipFormat, WantedClips

FORMAT = ClipFormat(channels=1, size=32, fps=10.0)


@pytest.mark.parametrize("clip_format", [None, FORMAT])
def test_a_runs_format_comes_before_what_is_wanted(clip_format, monkeypatch):
    asked: dict[str, Any] = {}

    def read(*args, **options):
        asked.update(options, args=args)
        return "clips"

    monkeypatch.setattr(clip_sets, "read_clip_folder", read)
    options = VideoOptions(path="here", fps=12.0, fit="pad", seed=3)
    assert read_clips(options, clip_format, size=48, num_frames=16) == "clips"
    assert asked == {
        "args": (Path("here").resolve(), clip_format or WantedClips(size=48, fps=12.0, fit="pad")),
        "seed": 3, "held_out_by": options.held_out_by, "num_frames": 16,
    }  # fmt: skip


def test_clips_are_counted_by_split_and_class():
    sets: Any = SimpleNamespace(train=SimpleNamespace(classes=("a", "b")), is_held_out=True)
    said = clips_in_words(sets, {"train": [0, 1, 1], "test": [1]})
    assert said.startswith("clips: 3 ")
    assert "1 held out" in said
