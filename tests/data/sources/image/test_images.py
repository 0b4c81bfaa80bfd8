"""Pictures in memory, and those that cannot be read."""

import pytest

from data.sources.image.test_image_sets import class_folders
from volano.data.sources import read_image_sets
from volano.data.sources.image.images import class_names
from volano.errors import DataError


class TestUnreadable:
    def test_a_few_are_left_out_and_listed(self, tmp_path):
        class_folders(tmp_path, num=10)
        (tmp_path / "cat" / "text.png").write_text("not an image")
        whole = (tmp_path / "dog" / "dog0.png").read_bytes()
        (tmp_path / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
        sets = read_image_sets(tmp_path)
        assert len(sets.train) == 20
        assert sorted(fault.path.rsplit("/")[-1] for fault in sets.train.faults) == [
            "cut.png",
            "text.png",
        ]
        assert all(fault.reason for fault in sets.train.faults)

    def test_too_many_stop(self, tmp_path):
        class_folders(tmp_path, num=5)
        for number in range(3):
            (tmp_path / "cat" / f"bad{number}.png").write_text("no")
        with pytest.raises(
            DataError,
            match="At most 10% of the images may be unreadable; got 3 of 13; the first: .*bad0",
        ):
            read_image_sets(tmp_path)

    def test_none_that_opens(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "1.jpg").write_text("no")
        with pytest.raises(DataError, match="images must be readable; got none of the 2 tried"):
            read_image_sets(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "1"], ("1", "9", "10")),
        (["1", "01", "001", "2"], ("001", "01", "1", "2")),
        (["01", "1", "2", "001"], ("001", "01", "1", "2")),
        (["²", "1"], ("1", "²")),
        (["1" * 5000, "2", "0"], ("0", "2", "1" * 5000)),
        (["b", "a", "10", "9"], ("10", "9", "a", "b")),
    ],
)
def test_the_order_of_classes_is_total(names, expected):
    assert class_names(names) == expected
