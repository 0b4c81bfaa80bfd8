import csv
import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import FASHION_MNIST
from volano.data.sources import LabelledImages, PixelFormat, choose_format, decode, hold_out, read_image_sets
from volano.data.sources.image.images import ImageFile
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
    content = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
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

    @pytest.mark.parametrize(("train", "test", "split"), [("train", "val", "valid"), ("Train", "test", "test")])
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
        assert len(read_image_sets(class_folders(tmp_path, classes=("cat",)), least_classes=1).train) == 5

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
        assert read_image_sets(tmp_path).train.images.shape == (4, 3, 48, 48)  # median 50, in steps of 8

    def test_a_size_of_ones_own(self, tmp_path):
        assert read_image_sets(class_folders(tmp_path), size=24).train.images.shape[-1] == 24

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda root: None, "sub-folder for each class; got .* with 0 images and 0 sub-folders"),
            (lambda root: picture(root / "a.png"), "got .* with 1 images and 0 sub-folders.*CLASS/IMAGE.jpg"),
            (lambda root: class_folders(root, classes=("only",)), r"at least two classes.*got 1 \(only\)"),
            (
                lambda root: (class_folders(root / "train"), class_folders(root / "val", classes=("bird", "cat"))),
                "Every class has images to train on; got only in .*val: bird",
            ),
        ],
    )
    def test_folders_that_cannot_be_trained_on(self, tmp_path, make, message):
        make(tmp_path)
        with pytest.raises(DataError, match=message):
            read_image_sets(tmp_path)

    def test_a_path_that_does_not_exist(self, tmp_path):
        with pytest.raises(UsageError, match="path to train on exists; got .*nowhere"):
            read_image_sets(tmp_path / "nowhere")
        (tmp_path / "a.zip").write_text("")
        with pytest.raises(UsageError, match="folder of class folders"):
            read_image_sets(tmp_path / "a.zip")


class TestUnreadable:
    def test_a_few_are_left_out_and_listed(self, tmp_path):
        class_folders(tmp_path, num=10)
        (tmp_path / "cat" / "text.png").write_text("not an image")
        whole = (tmp_path / "dog" / "dog0.png").read_bytes()
        (tmp_path / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
        sets = read_image_sets(tmp_path)
        assert len(sets.train) == 20
        assert sorted(fault.path.rsplit("/")[-1] for fault in sets.train.faults) == ["cut.png", "text.png"]
        assert all(fault.reason for fault in sets.train.faults)

    def test_too_many_stop(self, tmp_path):
        class_folders(tmp_path, num=5)
        for number in range(3):
            (tmp_path / "cat" / f"bad{number}.png").write_text("no")
        with pytest.raises(DataError, match="At most 10% of the images are unreadable; got 3 of 13; the first: .*bad0"):
            read_image_sets(tmp_path)

    def test_none_that_opens(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "1.jpg").write_text("no")
        with pytest.raises(DataError, match="images can be opened; got none of the 2 tried"):
            read_image_sets(tmp_path)


class TestDecode:
    FORMAT = PixelFormat(channels=3, size=16)

    def test_transparency_becomes_white(self, tmp_path):
        Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "a.png")
        assert (decode(tmp_path / "a.png", self.FORMAT) == 255).all()

    def test_a_photograph_is_turned_upright(self, tmp_path):
        image = Image.new("RGB", (16, 16), "black")
        image.paste("white", (0, 0, 16, 8))
        exif = Image.Exif()
        exif[0x0112] = 3  # turned by 180 degrees
        image.save(tmp_path / "a.jpg", exif=exif, quality=95)
        pixels = decode(tmp_path / "a.jpg", self.FORMAT)
        assert pixels[:, :7].mean() < 10
        assert pixels[:, 9:].mean() > 245

    def test_the_middle_is_kept(self, tmp_path):
        image = Image.new("L", (48, 16), 0)
        image.paste(255, (16, 0, 32, 16))
        image.save(tmp_path / "a.png")
        assert (decode(tmp_path / "a.png", PixelFormat(channels=1, size=16)) == 255).all()

    def test_pixels_of_the_right_size_are_not_touched(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert np.array_equal(decode(tmp_path / "a.png", self.FORMAT), pixels.transpose(2, 0, 1))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_sixteen_bits_become_eight(self, tmp_path, channels):
        ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
        Image.fromarray(ramp).save(tmp_path / "a.png")
        pixels = decode(tmp_path / "a.png", PixelFormat(channels=channels, size=16))
        assert np.array_equal(pixels[0].reshape(-1), np.arange(256))

    def test_floats_have_no_range(self, tmp_path):
        Image.fromarray(np.random.rand(16, 16).astype(np.float32)).save(tmp_path / "a.tiff")
        with pytest.raises(OSError, match="floating-point pixels"):
            decode(tmp_path / "a.tiff", self.FORMAT)

    @pytest.mark.parametrize(
        "error", [struct.error, KeyError, TypeError, ZeroDivisionError, EOFError, ValueError, IndexError]
    )
    def test_whatever_pillow_raises_is_an_unreadable_file(self, tmp_path, monkeypatch, error):
        def broken(image):
            raise error("in a directory of tags")

        picture(tmp_path / "a.png")
        monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
        with pytest.raises(OSError, match=rf"{error.__name__}: .*in a directory of tags"):
            decode(tmp_path / "a.png", self.FORMAT)

    def test_memory_that_runs_out_is_no_unreadable_file(self, tmp_path, monkeypatch):
        def broken(image):
            raise MemoryError

        picture(tmp_path / "a.png")
        monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
        with pytest.raises(MemoryError):
            decode(tmp_path / "a.png", self.FORMAT)

    def test_headers_that_raise_anything_are_skipped(self, tmp_path, monkeypatch):
        picture(tmp_path / "a.png", size=(40, 40))
        picture(tmp_path / "b.png", size=(24, 24))
        real = Image.open

        def opening(path):
            if path.name == "a.png":
                raise ZeroDivisionError
            return real(path)

        monkeypatch.setattr(Image, "open", opening)
        files = [ImageFile(path=tmp_path / name, label=0) for name in ("a.png", "b.png")]
        assert choose_format(files) == PixelFormat(channels=3, size=24)

    def test_the_size_is_read_off_the_headers(self, tmp_path):
        picture(tmp_path / "big.png", size=(500, 400))
        assert choose_format([ImageFile(path=tmp_path / "big.png", label=0)]) == PixelFormat(channels=3, size=128)


class TestTables:
    def rows(self, tmp_path):
        class_folders(tmp_path / "pictures")
        return [
            {"file": f"pictures/{name}/{name}{number}.png", "label": name, "split": "test" if number == 4 else "train"}
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

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(self.rows(tmp_path)), tmp_path / "table.parquet")
        self.check(read_image_sets(tmp_path / "table.parquet"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("file,colour\na.png,red\n", "a column named one of label, class, target, category; got file, colour"),
            ("file,label\n", "has rows"),
            ("file,label\na.png,cat\nb.png,\n", "has a label; got 1 without, the first in line 3"),
            ("file,label\na.png,cat\nb.png,cat\n", "at least two classes"),
            ("file,label,split\na.png,cat,tset\nb.png,dog,train\n", "train, val or test; got 'tset'"),
        ],
    )
    def test_tables_that_cannot_be_trained_on(self, tmp_path, text, message):
        (tmp_path / "table.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read_image_sets(tmp_path / "table.csv")


class TestIdx:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_the_mnist_family(self, tmp_path, suffix):
        pixels = np.arange(4 * 5 * 5, dtype=np.uint8).reshape(4, 5, 5)
        for prefix in ("train", "t10k"):
            write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", pixels)
            write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", np.array([3, 1, 3, 7], dtype=np.uint8))
        sets = read_image_sets(tmp_path)
        assert sets.train.classes == ("1", "3", "7")
        assert sets.train.labels.tolist() == [1, 0, 1, 2]
        assert torch.equal(sets.test.images, torch.from_numpy(pixels)[:, None])

    def test_halves_are_refused(self, tmp_path):
        write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((2, 3, 3), dtype=np.uint8))
        with pytest.raises(DataError, match="come in pairs; got .* without the train labels"):
            read_image_sets(tmp_path)

    def test_a_cut_file_is_refused(self, tmp_path):
        write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((2, 3, 3), dtype=np.uint8))
        write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(2, dtype=np.uint8))
        content = (tmp_path / "train-images-idx3-ubyte").read_bytes()
        (tmp_path / "train-images-idx3-ubyte").write_bytes(content[:-4])
        with pytest.raises(DataError, match="IDX file is whole; got .*train-images"):
            read_image_sets(tmp_path)

    @pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
    def test_fashion_mnist(self):
        sets = read_image_sets(FASHION_MNIST)
        assert sets.train.images.shape == (60000, 1, 28, 28)
        assert sets.test.images.shape == (10000, 1, 28, 28)
        assert torch.bincount(sets.train.labels).tolist() == [6000] * 10


def test_the_embedded_digits():
    sets = read_image_sets(None)
    assert sets.train.images.shape == (1797, 1, 8, 8)
    assert sets.train.images.max() == 255


class TestHoldOut:
    @staticmethod
    def images(labels, copies=1):
        count = len(labels)
        pixels = torch.arange(count, dtype=torch.int32).repeat_interleave(copies).view(torch.uint8).view(-1, 1, 2, 2)
        labels = torch.tensor(labels).repeat_interleave(copies)
        classes = tuple(str(number) for number in range(int(labels.max()) + 1))
        return LabelledImages(images=pixels, labels=labels, classes=classes, names=("",) * len(labels))

    @settings(deadline=None)
    @given(st.lists(st.integers(2, 40), min_size=2, max_size=5), st.integers(1, 3), st.integers(0, 99))
    def test_stratified_and_disjoint(self, counts, copies, seed):
        labels = [number for number, count in enumerate(counts) for _ in range(count)]
        images = self.images(labels, copies)
        kept, held = hold_out(images, seed=seed)
        assert sorted([*kept, *held]) == list(range(len(images)))
        for number, count in enumerate(counts):
            of_class = (images.labels[torch.from_numpy(held)] == number).sum().item()
            assert 1 <= of_class <= count * copies - 1
            assert abs(of_class - 0.15 * count * copies) <= copies + 1
        # Copies of a picture lie next to each other here, and on the same side.
        assert not {row // copies for row in kept} & {row // copies for row in held}

    def test_the_seed_decides(self):
        images = self.images([0] * 40 + [1] * 40)
        assert hold_out(images, seed=1)[1].tolist() == hold_out(images, seed=1)[1].tolist()
        assert hold_out(images, seed=1)[1].tolist() != hold_out(images, seed=2)[1].tolist()

    def test_a_class_of_one_picture_is_refused(self):
        with pytest.raises(DataError, match="two different images.*got 1 in class '1'"):
            hold_out(self.images([0, 0, 1]), seed=0)
