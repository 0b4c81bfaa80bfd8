"""The folders of splits."""

import pytest

from volano.data.sources.split_folders import (
    class_folders,
    left_beside,
    loose_in,
    split_folders,
)
from volano.errors import DataError


def folders(root, *names):
    for name in names:
        (root / name).mkdir()
    return sorted(root.iterdir())


def test_folders_by_their_usual_names(tmp_path):
    notices = []
    found = split_folders(tmp_path, folders(tmp_path, "Training Set", "dev", "valid"), notices)
    assert {split: part.name for split, part in found.items()} == {
        "train": "Training Set", "valid": "dev",
    }  # fmt: skip
    assert notices == ["valid/ is not read: dev/ is the valid set already"]


def test_without_one_to_train_on_all_are_meant(tmp_path):
    notices = []
    assert split_folders(tmp_path, folders(tmp_path, "dev", "valid", "cats"), notices) is None
    assert notices == []
    with pytest.raises(DataError, match="must have one to train on"):
        split_folders(tmp_path, folders(tmp_path, "test"), notices)


def test_a_class_may_be_called_train(tmp_path):
    children = folders(tmp_path, "bus", "car", "train")
    for name in ("bus", "car", "train"):
        (tmp_path / name / "a.x").touch()

    def holds(folder):
        return any(folder.rglob("*.x"))

    notices = []
    assert split_folders(tmp_path, children, notices, holds) is None
    assert notices == [
        "train/ is taken for a class, for it has no folders of classes, and others lie beside it"
    ]
    assert split_folders(tmp_path, children[1:], notices, holds)  # train/ and one other folder
    (tmp_path / "train" / "car").mkdir()
    (tmp_path / "train" / "car" / "a.x").touch()
    assert split_folders(tmp_path, children, notices, holds) == {"train": tmp_path / "train"}
    (tmp_path / "train" / "car" / "a.x").unlink()
    (tmp_path / "test").mkdir()
    children = sorted(tmp_path.iterdir())
    assert set(split_folders(tmp_path, children, notices, holds)) == {"test", "train"}


def test_what_lies_beside(tmp_path):
    children = folders(tmp_path, "train", "extra", "empty")
    for place in ("extra/a.x", "b.x", "c.y"):
        (tmp_path / place).touch()

    def is_one(name):
        return name.endswith(".x")

    def listed(folder):
        return [path for path in folder.rglob("*") if is_one(path.name)]

    read = [tmp_path / "train"]
    assert left_beside(tmp_path, read, children, listed, is_one, "things") == [
        "things are read from train/; left out: 1 in extra/, 1 in no folder"
    ]
    assert loose_in(tmp_path, is_one) == [tmp_path / "b.x"]


def test_folders_of_a_class_are_told_apart_as_a_table_does(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"  # as macOS writes it
    folders(tmp_path, composed, decomposed, "cat", "cat ", "Dog", "dog", "fi\nsh")
    notices = []
    found = class_folders(tmp_path, set(), (), notices)
    assert {name: len(places) for name, places in found.items()} == {
        composed: 2, "cat": 2, "Dog": 1, "dog": 1, "fi\nsh": 1,
    }  # fmt: skip
    assert sorted(notices) == [
        f"folders of {tmp_path.name}/ are one class, caf\u00e9: 'cafe\\u0301', 'caf\\xe9'",
        f"folders of {tmp_path.name}/ are one class, cat: 'cat', 'cat '",
    ]
    # As a run of an earlier version has them.
    known = (decomposed, "cat", "cat ", "dog")
    again = class_folders(tmp_path, set(), known, [])
    assert {decomposed: 2, "cat": 1, "cat ": 1}.items() <= {
        name: len(places) for name, places in again.items()
    }.items()
