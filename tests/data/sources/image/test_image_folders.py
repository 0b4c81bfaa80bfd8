"""Class folders, and what of a folder is left out."""

import pytest

from data.sources.image.test_image_sets import class_folders, picture
from volano.data.sources import read_image_sets
from volano.data.sources.image.image_folders import find_class_folders
from volano.errors import DataError


def test_every_kind_that_is_left_out_is_said(tmp_path):
    for split in ("train", "test"):
        class_folders(tmp_path / split)
    class_folders(tmp_path / "validation", num=2)
    class_folders(tmp_path / "val", num=1)
    (tmp_path / "train" / "fish").mkdir()
    (tmp_path / "train" / "cat" / "photo.heic").write_bytes(b"x")
    picture(tmp_path / "train" / "loose.png")
    picture(tmp_path / "unlabelled" / "a.png")
    picture(tmp_path / "b.png")
    found = find_class_folders(tmp_path)
    assert found.classes == ("cat", "dog")
    assert {split: len(files) for split, files in found.labelled().items()} == {
        "test": 10, "train": 10, "valid": 2,
    }  # fmt: skip
    assert sorted(found.notices) == [
        "files that Pillow does not open as images are left out: 1 .heic; pillow-heif lets it",
        "folders of train/ without images are no classes: fish",
        "images are read from test/ and train/ and val/; left out: 1 in unlabelled/, 4 in "
        "validation/, 1 in no folder",
        "left out: 1 image next to the class folders of train/",
        "validation/ is not read: val/ is the valid set already",
    ]


def test_nothing_is_said_of_a_folder_that_is_read_whole(tmp_path):
    assert find_class_folders(class_folders(tmp_path)).notices == ()


def test_a_class_that_is_only_tested(tmp_path):
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "test", classes=("bird", "cat"))
    with pytest.raises(DataError, match="Every class must have images to train on; got only in"):
        find_class_folders(tmp_path).labelled()


@pytest.mark.parametrize("suffix", ["jfif", "avif", "tga"])
def test_whatever_pillow_opens_is_read(tmp_path, suffix):
    class_folders(tmp_path)
    for path in sorted((tmp_path / "dog").iterdir()):
        path.rename(path.with_suffix(f".{suffix}"))  # Pillow looks at the content
    assert read_image_sets(tmp_path).train.labels.tolist() == [0] * 5 + [1] * 5


def test_a_class_may_be_called_train(tmp_path):
    found = find_class_folders(class_folders(tmp_path, classes=("bus", "car", "train")))
    assert found.classes == ("bus", "car", "train")
    assert "train/ is taken for a class" in found.notices[0]


def test_a_test_set_whose_names_are_written_as_macos_does(tmp_path):
    class_folders(tmp_path / "train", classes=("caf\u00e9", "cat"))
    class_folders(tmp_path / "test", classes=("cafe\u0301", "cat"))
    found = find_class_folders(tmp_path)
    assert found.classes == ("caf\u00e9", "cat")
    assert {split: len(files) for split, files in found.labelled().items()} == {
        "test": 10, "train": 10,
    }  # fmt: skip
    class_folders(tmp_path / "train", classes=("Cat",))
    assert find_class_folders(tmp_path).notices == (
        "classes that differ in capitals alone: Cat, cat",
    )
    assert find_class_folders(tmp_path, ("cafe\u0301", "cat")).classes == (
        "Cat",
        "cafe\u0301",
        "cat",
    )
