"""Members are known by content and class; what has changed is said."""

import pytest

from volano.data.sources import (
    SplitMember,
    SplitRecord,
    contradictions,
    copies_of_training,
    file_key,
    member_rows,
)
from volano.errors import CheckpointError


def member(number, label="a", name=None):
    return SplitMember(f"{number:016x}", label, name or f"{number}.png")


RECORD = SplitRecord(
    classes=("a", "b"), parts={"train": [member(2), member(1, "b")], "test": [member(3), member(4)]}
)


def test_a_record_is_read_as_it_was_written():
    assert SplitRecord.from_json(RECORD.to_json()) == RECORD
    with pytest.raises(CheckpointError, match=r"splits.json must say .* got KeyError"):
        SplitRecord.from_json({"schema_version": 1})
    with pytest.raises(CheckpointError, match="schema version 2"):
        SplitRecord.from_json({**RECORD.to_json(), "schema_version": 2})


def test_members_are_picked_in_the_order_of_the_record():
    there = [member(9), member(1, "b", "renamed.png"), member(2, "b"), member(2)]
    assert member_rows(RECORD["train"], there) == [3, 1]
    assert member_rows([member(1), member(1)], [member(1), member(0), member(1)]) == [0, 2]


def test_changes_are_named():
    same = [one for part in RECORD.parts.values() for one in part]
    assert RECORD.changes(same[::-1], "images") == ()
    changed = [member(1, "b"), member(3), member(4, "b"), *map(member, range(10, 15))]
    assert RECORD.changes(changed, "images") == (
        "changed since the run: 1 of the 2 images that the run was trained on are missing (2.png)",
        "changed since the run: 1 images have another class now, and are not evaluated (4.png)",
        "changed since the run: 5 images are new, and are not evaluated (10.png, 11.png, 12.png, "
        "...)",
    )
    assert "1 of the run's 2 test images are missing" in RECORD.changes(same[:3], "images")[0]


def test_missing_validation_examples_are_named():
    record = SplitRecord(classes=("a",), parts={"train": [member(1)], "valid": [member(2)] * 2})
    with pytest.raises(CheckpointError, match="2 of the run's 2 validation images are missing"):
        record.check_there({"train": [1], "valid": []}, [member(1)], "images", "photos")
    with pytest.raises(CheckpointError, match="photos: some copies are missing"):
        record.check_there({"valid": [2]}, [member(1), member(2)], "images", "photos")


def test_examples_that_were_trained_on_are_said():
    assert RECORD.trained_on([member(3), member(8)], "clips") == ()
    (notice,) = RECORD.trained_on([member(2, "b", "copy.png"), member(8)], "clips")
    assert notice.startswith("1 of the 2 tested clips are among those that the run was trained on")
    assert copies_of_training([], [member(1)], "texts") == ()


def test_a_file_is_known_by_what_is_in_it(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 200_000)
    (tmp_path / "b").write_bytes(b"x" * 200_000)
    assert file_key(tmp_path / "a") == file_key(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"x" * 199_999 + b"y")
    assert file_key(tmp_path / "a") != file_key(tmp_path / "b")
    assert file_key(tmp_path / "c") != file_key(tmp_path / "d")


def test_one_content_in_two_classes_is_said():
    assert contradictions([member(1), member(1), member(2, "b")], "images") == ()
    (notice,) = contradictions([member(1), member(2), member(1, "b", "copy.png")], "images")
    assert notice.startswith("2 of the 3 images to train on have the same content as one with ano")
    assert notice.endswith("(1.png, copy.png)")
