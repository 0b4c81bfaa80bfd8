import csv
import gzip
import json
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import FASHION_MNIST
from volano.data.sources import WantedFormat, read_image_sets
from volano.data.sources.image.image_sets import _picture_of
from volano.errors import DataError, UsageError


def picture(path, colour=(200, 30, 30), size=(20, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    image.putpixel((0, 0), (hash(path.name) % 256, 1, 2))  # no two alike
    image.convert(mode).save(path)


def class_folders(root, classes=("cat", "dog"), num=5, **kwargs):
    for name in classes:
        for number in range(num):
            picture(root / name / f"{name}{number}.png", **kwargs)
    return root


def write_idx(path, array):
    content = (
        struct.pack(">HBB", 0, 8, array.ndim)
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


class TestFolders:
    def test_class_folders(self, tmp_path):
        sets = read_image_sets(class_folders(tmp_path))
        assert sets.train.classes == ("cat", "dog")
        assert sets.train.images.shape == (10, 3, 16, 16)
        assert sets.train.images.dtype == torch.uint8
        assert sets.train.labels.tolist() == [0] * 5 + [1] * 5
        assert sets.train.names[0] == "cat/cat0.png"
        assert sets.test is sets.valid is None

    @pytest.mark.parametrize(
        ("train", "test", "split"), [("train", "val", "valid"), ("Train", "test", "test")]
    )
    def test_given_splits(self, tmp_path, train, test, split):
        class_folders(tmp_path / train)
        class_folders(tmp_path / test, num=2)
        sets = read_image_sets(tmp_path)
        assert len(sets.train) == 10
        assert len(getattr(sets, split)) == 4

    def test_an_unsorted_test_folder_is_said(self, tmp_path):
        class_folders(tmp_path / "train")
        picture(tmp_path / "test" / "a.png")
        sets = read_image_sets(tmp_path)
        assert sets.test is None
        assert "holds no class folders and is not used" in sets.notices[0]

    def test_one_class_may_be_evaluated(self, tmp_path):
        assert (
            len(read_image_sets(class_folders(tmp_path, classes=("cat",)), least_classes=1).train)
            == 5
        )

    def test_nested_folders_hidden_files_and_other_files(self, tmp_path):
        class_folders(tmp_path)
        picture(tmp_path / "cat" / "deeper" / "one.png")
        picture(tmp_path / "cat" / ".hidden.png")
        (tmp_path / "cat" / "notes.txt").write_text("x")
        assert len(read_image_sets(tmp_path).train) == 11

    def test_numbers_are_ordered_as_numbers(self, tmp_path):
        sets = read_image_sets(class_folders(tmp_path, classes=("2", "10", "1")))
        assert sets.train.classes == ("1", "2", "10")

    def test_grey_pictures_have_one_channel(self, tmp_path):
        assert read_image_sets(class_folders(tmp_path, mode="L")).train.images.shape[1] == 1

    def test_mixed_sizes_and_channels(self, tmp_path):
        picture(tmp_path / "a" / "1.png", size=(40, 60))
        picture(tmp_path / "a" / "2.jpg", size=(100, 50), mode="L")
        picture(tmp_path / "b" / "1.gif", size=(64, 64), mode="P")
        picture(tmp_path / "b" / "2.png", size=(50, 50), mode="RGBA")
        # Median 50, in steps of 8.
        assert read_image_sets(tmp_path).train.images.shape == (4, 3, 48, 48)

    def test_a_size_of_ones_own(self, tmp_path):
        assert (
            read_image_sets(class_folders(tmp_path), WantedFormat(size=24)).train.images.shape[-1]
            == 24
        )

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda root: None,
                "sub-folder for each class; got .* with 0 images and 0 sub-folders",
            ),
            (
                lambda root: picture(root / "a.png"),
                "got .* with 1 images and 0 sub-folders.*CLASS/IMAGE.jpg",
            ),
            (
                lambda root: class_folders(root, classes=("only",)),
                r"at least two classes.*got 1 \(only\)",
            ),
            (
                lambda root: (
                    class_folders(root / "train"),
                    class_folders(root / "val", classes=("bird", "cat")),
                ),
                "Every class must have images to train on; got only in .*val: bird",
            ),
        ],
    )
    def test_folders_that_cannot_be_trained_on(self, tmp_path, make, message):
        make(tmp_path)
        with pytest.raises(DataError, match=message):
            read_image_sets(tmp_path)

    def test_a_path_that_does_not_exist(self, tmp_path):
        with pytest.raises(UsageError, match="`path` must exist; got .*nowhere"):
            read_image_sets(tmp_path / "nowhere")
        (tmp_path / "a.zip").write_text("")
        with pytest.raises(UsageError, match="folder of class folders"):
            read_image_sets(tmp_path / "a.zip")


class TestTables:
    def rows(self, tmp_path):
        class_folders(tmp_path / "pictures")
        return [
            {
                "file": f"pictures/{name}/{name}{number}.png",
                "label": name,
                "split": "test" if number == 4 else "train",
            }
            for name in ("cat", "dog")
            for number in range(5)
        ]

    def check(self, sets):
        assert sets.train.classes == ("cat", "dog")
        assert (len(sets.train), len(sets.test)) == (8, 2)

    def test_csv(self, tmp_path):
        rows = self.rows(tmp_path)
        with (tmp_path / "table.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        self.check(read_image_sets(tmp_path / "table.csv"))

    def test_parquet(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow", reason="needs the extra `data`")
        pytest.importorskip("pyarrow.parquet")

        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(self.rows(tmp_path)), tmp_path / "table.parquet"
        )
        self.check(read_image_sets(tmp_path / "table.parquet"))

    def test_bytes_in_parquet(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow", reason="needs the extra `data`")
        pytest.importorskip("pyarrow.parquet")
        rows = [
            {
                "image": {"bytes": (tmp_path / row["file"]).read_bytes(), "path": row["file"]},
                "label": row["label"],
            }
            for row in self.rows(tmp_path)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "table.parquet")
        sets = read_image_sets(tmp_path / "table.parquet")
        assert torch.equal(sets.train.images, read_image_sets(tmp_path / "pictures").train.images)

    def test_whatever_stands_for_bytes_and_names(self, tmp_path):
        rows = [{"image": row["file"], "label": row["label"]} for row in self.rows(tmp_path)]
        odd = [{"bytes": 5}, {"bytes": "abc"}, {"path": ["x"]}, 7, None]
        lines = [*rows, *({"image": one, "label": "cat"} for one in odd)]
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
        sets = read_image_sets(tmp_path / "t.jsonl")
        assert len(sets.train) == 10
        reasons = [fault.reason for fault in sets.faults]
        assert (
            reasons
            == ["the bytes of an image are int", "the bytes of an image are str"]
            + ["without an image"] * 3
        )

    @pytest.mark.parametrize("suffix", ["p\0ng", "p" * 300, "/../x"])
    def test_a_name_beside_bytes_names_no_file(self, tmp_path, suffix):
        content = (tmp_path / self.rows(tmp_path)[0]["file"]).read_bytes()
        unpacked = []
        cell = {"bytes": content, "path": f"a.{suffix}"}
        file = _picture_of(cell, 1, tmp_path / "t.csv", unpacked)
        assert file == unpacked[0] / "000000001"
        assert file.read_bytes() == content

    def test_a_row_that_cannot_be_read_loses_no_other(self, tmp_path):
        rows = self.rows(tmp_path)
        lines = [f"{row['file']};{row['label']}" for row in rows]
        lines.insert(3, 'pictures/cat/cat0.png;"cat')
        (tmp_path / "table.csv").write_text("\n".join(["File;LABEL", *lines]))
        sets = read_image_sets(tmp_path / "table.csv")
        assert len(sets.train) == 10
        assert [fault.path.rsplit(":", 1)[1] for fault in sets.faults] == ["5"]

    def test_names_as_windows_writes_them(self, tmp_path):
        rows = "".join(f"{row['file']},{row['label']}\n" for row in self.rows(tmp_path))
        (tmp_path / "t.csv").write_text("path,label\n" + rows.replace("/", chr(92)))
        assert len(read_image_sets(tmp_path / "t.csv").train) == 10

    @pytest.mark.parametrize("in_files", [False, True])
    def test_names_that_no_file_can_have(self, tmp_path, in_files):
        rows = [{"path": row["file"], "label": row["label"]} for row in self.rows(tmp_path) * 3]
        rows += [{"path": f"{chr(code)}.png", "label": "cat"} for code in (0xD800, 0)]
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
        sets = read_image_sets(tmp_path / "t.jsonl", in_files=in_files)
        assert [fault.reason for fault in sets.faults] == ["a name that no file can have"]
        assert len(sets.train) + len(sets.train.faults) == 31
        assert sum(map(len, sets.train.copies())) == len(sets.train) == len(sets.train.members())

    def test_a_second_validation_folder_is_said(self, tmp_path):
        for name in ("training_set", "val", "valid"):
            class_folders(tmp_path / name)
        sets = read_image_sets(tmp_path)
        assert len(sets.valid) == 10
        assert "valid/ is not read: val/ is the valid set already" in sets.notices
        (tmp_path / "training_set").rename(tmp_path / "test_set")
        with pytest.raises(DataError, match="must have one to train on"):
            read_image_sets(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "file,colour\na.png,red\n",
                "column of labels, named label, class, target, .*; got .*file, colour",
            ),
            ("file,label\n", "must have rows"),
            (
                "file,label\na.png,cat\nb.png,\n",
                "must have a label; got 1 without, the first in line 3",
            ),
            ("file,label\na.png,cat\nb.png,cat\n", "at least two classes"),
            (
                "file,label,split\na.png,cat,tset\nb.png,dog,train\n",
                "train, val or test; got 'tset'",
            ),
        ],
    )
    def test_tables_that_cannot_be_trained_on(self, tmp_path, text, message):
        (tmp_path / "table.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read_image_sets(tmp_path / "table.csv")


def test_a_pipe_that_a_row_names_is_not_waited_for(tmp_path):
    class_folders(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    rows = "".join(f"{name},{name.parent}\n" for name in names if name.name != "pipe.png")
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}pipe.png,cat\n")
    sets = read_image_sets(tmp_path / "t.csv")
    assert len(sets.train) == 10
    assert "a pipe, a socket or a device" in sets.faults[0].reason
    for name in ("a\0b.png", f"{'x' * 5000}.png"):  # of no file on any disk
        (tmp_path / "t.csv").write_text(f"path,label\n{rows}{name},cat\n")
        sets = read_image_sets(tmp_path / "t.csv")
        assert (len(sets.train), len(sets.train.faults)) == (10, 1)


def test_a_tables_labels_are_a_runs(tmp_path):
    class_folders(tmp_path, num=1)
    name = next(tmp_path.rglob("cat/*")).relative_to(tmp_path)
    (tmp_path / "t.csv").write_text(f"path,label\n{name},1.0\n")
    for known in (("1.0", "x"), ("0", "1"), ("False", "True")):
        sets = read_image_sets(tmp_path / "t.csv", least_classes=1, classes=known)
        assert set(sets.train.classes) <= set(known)


class TestIdx:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_the_mnist_family(self, tmp_path, suffix):
        pixels = np.arange(4 * 5 * 5, dtype=np.uint8).reshape(4, 5, 5)
        for prefix in ("train", "t10k"):
            write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", pixels)
            write_idx(
                tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}",
                np.array([3, 1, 3, 7], dtype=np.uint8),
            )
        sets = read_image_sets(tmp_path)
        assert sets.train.classes == ("1", "3", "7")
        assert sets.train.labels.tolist() == [1, 0, 1, 2]
        assert torch.equal(sets.test.images, torch.from_numpy(pixels)[:, None])

    def test_halves_are_refused(self, tmp_path):
        write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((2, 3, 3), dtype=np.uint8))
        with pytest.raises(DataError, match="come in pairs; got .* without the train labels"):
            read_image_sets(tmp_path)

    @pytest.mark.parametrize(
        ("train", "test"), [((2, 0, 3), (2, 0, 3)), ((2, 3, 3), (2, 3, 0)), ((2, 3, 3), (2, 4, 4))]
    )
    def test_sizes_that_cannot_be(self, tmp_path, train, test):
        for part, shape in (("train", train), ("t10k", test)):
            write_idx(tmp_path / f"{part}-images-idx3-ubyte", np.zeros(shape, dtype=np.uint8))
            write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(2, dtype=np.uint8))
        with pytest.raises(DataError, match="IDX images must have pixels, and those to test on"):
            read_image_sets(tmp_path)

    def test_a_cut_file_is_refused(self, tmp_path):
        write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((2, 3, 3), dtype=np.uint8))
        write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(2, dtype=np.uint8))
        content = (tmp_path / "train-images-idx3-ubyte").read_bytes()
        (tmp_path / "train-images-idx3-ubyte").write_bytes(content[:-4])
        with pytest.raises(DataError, match="IDX file must be complete; got .*train-images"):
            read_image_sets(tmp_path)

    @pytest.mark.skipif(
        not FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
    )
    def test_fashion_mnist(self):
        sets = read_image_sets(FASHION_MNIST)
        assert sets.train.images.shape == (60000, 1, 28, 28)
        assert sets.test.images.shape == (10000, 1, 28, 28)
        assert torch.bincount(sets.train.labels).tolist() == [6000] * 10


def test_the_embedded_digits():
    sets = read_image_sets(None)
    assert sets.train.images.shape == (1797, 1, 8, 8)
    assert sets.train.images.max() == 255
