"""The clips of a run are found again by their content."""

import pytest
import torch

from data.sources.video.test_clips import folder_of
from volano.data.sources import read_clip_folder
from volano.errors import DataError


def test_the_clips_of_a_run_are_found_again(tmp_path):
    first = read_clip_folder(folder_of(tmp_path, num=9), num_frames=16)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        path.rename(tmp_path / f"{9 - number}-{path.name}")
    again = read_clip_folder(tmp_path, num_frames=16, recorded=first.splits)
    assert torch.equal(again.test.frames, first.test.frames)
    assert torch.equal(again.train.frames, first.train.frames)
    assert not any("changed" in notice for notice in again.notices)
    for name in set(again.test.names):
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"own clips must be there; got none of the \d of its test"):
        read_clip_folder(tmp_path, num_frames=16, recorded=first.splits)
