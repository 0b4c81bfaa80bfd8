"""Folders of clips: classes, splits, and what is left out."""

import pytest

from clips import moving_square, write_clip
from data.sources.video.test_clips import folder_of
from volano.data.sources import read_clip_folder
from volano.errors import DataError


def test_class_folders(tmp_path):
    for name in ("left", "right"):
        folder_of(tmp_path / name, num=3, speed=1 if name == "left" else 2)
    sets = read_clip_folder(tmp_path, num_frames=8)
    assert sets.train.classes == ("left", "right")
    assert sorted(sets.train.labels.tolist()) == [0, 0, 1, 1]
    assert sorted(set(sets.test.labels.tolist())) == [0, 1]
    for name, label in zip(sets.train.names, sets.train.labels.tolist(), strict=True):
        assert name.startswith(("left", "right")[label])


def test_loose_clips_beside_folders_have_no_classes(tmp_path):
    folder_of(tmp_path / "left", num=2)
    folder_of(tmp_path / "right", num=2, speed=2)
    write_clip(tmp_path / "loose.mp4", moving_square(speed=3))
    sets = read_clip_folder(tmp_path, num_frames=8)
    assert sets.train.classes == ()
    assert len(sets.train) + len(set(sets.test.names)) == 5


def test_given_splits(tmp_path):
    folder_of(tmp_path / "train", num=3)
    folder_of(tmp_path / "test", num=2, speed=2)
    sets = read_clip_folder(tmp_path, num_frames=10)
    assert len(sets.train) == 3
    assert sets.test.frames.shape[:2] == (4, 10)  # twenty frames are two windows of ten
    assert not sets.is_held_out


def test_what_lies_beside_the_splits_is_said(tmp_path):
    for name, num in (("train", 3), ("test", 2), ("val", 4), ("extra", 1), ("empty", 0)):
        folder_of(tmp_path / name, num=num)
        (tmp_path / name).mkdir(exist_ok=True)
    write_clip(tmp_path / "loose.mp4", moving_square())
    sets = read_clip_folder(tmp_path, num_frames=20)
    assert (len(sets.train), len(sets.test)) == (3, 2)
    assert sets.notices[0] == (
        "clips are read from train/ and test/; left out: 1 in extra/, 4 in val/, 1 in no folder"
    )


def test_val_where_test_holds_nothing(tmp_path):
    for name, num in (("train", 3), ("test", 0), ("val", 2)):
        folder_of(tmp_path / name, num=num)
        (tmp_path / name).mkdir(exist_ok=True)
    sets = read_clip_folder(tmp_path, num_frames=20)
    assert (len(sets.train), len(sets.test), sets.is_held_out) == (3, 2, False)
    assert not any("left out" in text for text in sets.notices)


@pytest.mark.parametrize(
    ("train", "test"), [("training_set", "test_set"), ("Train", "dev"), ("training", "validation")]
)
def test_splits_have_the_names_that_they_have_for_images(tmp_path, train, test):
    folder_of(tmp_path / train, num=3)
    folder_of(tmp_path / test, num=2)
    sets = read_clip_folder(tmp_path, num_frames=20)
    assert (len(sets.train), len(sets.test), sets.is_held_out) == (3, 2, False)


def test_splits_without_one_to_train_on(tmp_path):
    folder_of(tmp_path / "val", num=3)
    folder_of(tmp_path / "test", num=2)
    with pytest.raises(DataError, match="must have one to train on"):
        read_clip_folder(tmp_path, num_frames=20)


def test_loose_clips_that_undo_classes_are_said(tmp_path):
    folder_of(tmp_path / "left", num=2)
    folder_of(tmp_path / "right", num=2, speed=2)
    write_clip(tmp_path / "loose.mp4", moving_square(speed=3))
    notices = read_clip_folder(tmp_path, num_frames=8).notices
    assert f"{tmp_path.name}/ holds 1 loose clips: its folders are no classes" in notices
