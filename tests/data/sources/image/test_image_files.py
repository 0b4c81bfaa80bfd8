"""Folders of images that do not fit into memory train as those that do."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import volano
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.apps.kinds import task_of
from volano.data.sources import ImageFiles, ImageFilesDataset, PixelFormat, hold_out, read_image_sets
from volano.data.sources.image import image_files as image_files_module
from volano.data.sources.image import images as images_module
from volano.device import Device
from volano.errors import DataError
from volano.task.describe import describe
from volano.training import RunFolder

NUM = 60  # of each class


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Crops of scikit-learn's two photographs, in a folder for each; one crop lies there twice."""
    root = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for number in range(NUM):
            top, left = generator.integers(0, 300), generator.integers(0, 500)
            crop = Image.fromarray(pixels[top : top + 96, left : left + 128])
            crop.save(root / name / f"{number:03}.jpg", quality=90)
    (root / "china" / "copy.jpg").write_bytes((root / "china" / "007.jpg").read_bytes())
    return root


@pytest.fixture
def little_memory(monkeypatch):
    """Half of the free memory is less than the decoded images take."""
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000_000)


def read(root):
    return read_image_sets(root, size=64)


def test_they_stay_in_their_files_and_it_is_said(photographs, little_memory):
    sets = read(photographs)
    assert isinstance(sets.train.images, ImageFiles)
    assert sets.train.images.shape == (2 * NUM + 1, 3, 64, 64)
    assert len(sets.notices) == 1
    assert "decoded again whenever they are needed: 0.0 GiB of" in sets.notices[0]
    assert "121 images of 64 px" in sets.notices[0]


def test_the_same_pixels_and_the_same_split(photographs, monkeypatch):
    whole = read(photographs).train
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000_000)
    lazy = read(photographs).train
    assert torch.equal(torch.stack([image for image, _ in lazy.dataset()]), whole.images)
    assert torch.equal(lazy.labels, whole.labels)
    assert lazy.names == whole.names
    for mine, theirs in zip(hold_out(lazy, seed=3), hold_out(whole, seed=3), strict=True):
        assert np.array_equal(mine, theirs)
    rows = [5, 100, 2]
    assert torch.equal(lazy.in_memory(rows)[0], whole.images[rows])
    assert lazy.select(rows).names == whole.select(rows).names
    monkeypatch.setattr(images_module, "_PART", 50)
    assert torch.equal(torch.cat([pixels for pixels, _ in lazy.parts()]), whole.images)


def test_copies_are_found_by_content(photographs, little_memory):
    sets = read(photographs)
    groups = [rows for rows in sets.train.images.copies() if len(rows) > 1]
    assert [[sets.train.names[row] for row in rows] for rows in groups] == [["china/007.jpg", "china/copy.jpg"]]


def test_of_files_of_one_size_only_likely_copies_are_read_whole(photographs, tmp_path, monkeypatch):
    for path in sorted((photographs / "flower").iterdir())[:12]:
        Image.open(path).save(tmp_path / f"{path.stem}.bmp")  # every bitmap of so many pixels is of one size
    paths = sorted(tmp_path.iterdir())
    assert len({path.stat().st_size for path in paths}) == 1
    paths[9].write_bytes(paths[4].read_bytes())
    changed = bytearray(paths[4].read_bytes())
    changed[60] ^= 1  # far from the middle
    paths[2].write_bytes(changed)
    read_whole = []
    real = image_files_module._content
    monkeypatch.setattr(image_files_module, "_content", lambda path: read_whole.append(path) or real(path))
    groups = ImageFiles(tuple(paths), PixelFormat(channels=3, size=16)).copies()
    assert [rows for rows in groups if len(rows) > 1] == [[4, 9]]
    assert sorted(row for rows in groups for row in rows) == list(range(12))
    assert read_whole == [paths[2], paths[4], paths[9]]


def test_what_a_recipe_needs_comes_from_a_sample(photographs, little_memory, monkeypatch):
    monkeypatch.setattr(images_module, "_MOST_SAMPLED", 30)
    application = ImageApplication.read(ImageOptions(path=str(photographs), image_size=64))
    assert 20 <= len(application.patches) <= 30
    assert 60 < application.spec.mean[0] < 190


def test_the_digest_goes_by_content(photographs, little_memory, tmp_path):
    import shutil

    def digest(root):
        return read(root).train.dataset().fingerprint()

    first = digest(photographs)
    elsewhere = shutil.copytree(photographs, tmp_path / "elsewhere")
    assert digest(elsewhere) == first
    (elsewhere / "china" / "000.jpg").unlink()
    assert digest(elsewhere) != first


def test_the_digest_is_taken_once_for_all_tasks(photographs, little_memory, monkeypatch):
    application = ImageApplication.read(ImageOptions(path=str(photographs), image_size=64, flip="no"))
    first = application.task(3).data.fingerprint()
    monkeypatch.setattr(image_files_module, "_size", None)  # no file is asked any more
    assert application.task(5).data.fingerprint() == first
    assert application.train.dataset().fingerprint() == first


def test_a_sample_that_cannot_be_read_is_said(photographs, little_memory, tmp_path):
    import shutil

    root = shutil.copytree(photographs, tmp_path / "photographs")
    for path in root.rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:640])  # the header tells the size, and no pixel follows
    with pytest.raises(
        DataError, match=r"At most 10% of the images are unreadable; got \d+ of \d+; the first: .*\.jpg"
    ):
        ImageApplication.read(ImageOptions(path=str(root), image_size=64))


def test_a_folder_is_trained_on_and_faults_are_listed(photographs, little_memory, tmp_path):
    import shutil

    root = shutil.copytree(photographs, tmp_path / "photographs")
    broken = root / "flower" / "011.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    result = volano.train(
        "image", root, epochs=2, image_size=64, batch_size=16, out=tmp_path / "run", observer=volano.Observer()
    )
    assert result.status == "finished"
    assert any("decoded again" in notice for notice in result.notices)
    assert any(notice.startswith("workers=") for notice in result.notices)
    faults = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert {fault["path"] for fault in faults} == {str(broken)}
    scores = volano.load(tmp_path / "run", device="cpu").evaluate()
    assert scores["accuracy"] == result.metrics["test_accuracy"]


@pytest.mark.parametrize("in_files", [True, False])
def test_where_images_lie_is_decided_once(photographs, tmp_path, monkeypatch, in_files):
    import shutil

    def free(little):
        monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000_000 if little else 10**11)

    root = shutil.copytree(photographs, tmp_path / "photographs")
    (root / "flower" / "011.jpg").write_bytes(b"no image")
    free(little=in_files)
    result = volano.train(
        "image",
        root,
        epochs=2,
        image_size=64,
        batch_size=16,
        flip="no",
        out=tmp_path / "run",
        observer=volano.Observer(),
    )
    free(little=not in_files)
    folder = RunFolder.open(tmp_path / "run")
    assert folder.read_json("run.json")["source"]["dials"]["in_files"] is in_files
    task = task_of(folder)
    assert isinstance(task.data, ImageFilesDataset) is in_files
    assert (
        describe(task, task.model())["data"]["content_digest"]
        == folder.read_json("task.json")["data"]["content_digest"]
    )
    scores = volano.load(tmp_path / "run", device="cpu").evaluate()
    assert scores["accuracy"] == result.metrics["test_accuracy"]
    assert scores["num_examples"] == result.metrics["num_test"]


def test_unreadable_files_do_not_move_others_in_the_split(photographs, tmp_path, monkeypatch):
    import shutil

    def names(images):
        return [set(images.select(rows).names) for rows in hold_out(images, seed=3)]

    root = shutil.copytree(photographs, tmp_path / "photographs")
    kept, held = names(read(root).train)
    broken = {sorted(kept)[5], sorted(held)[0], sorted(held)[-1]}
    for name in broken:
        (root / name).write_bytes(b"no image " + name.encode())
    whole = read(root).train
    assert len(whole.faults) == 3
    assert names(whole) == [kept - broken, held - broken]
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000_000)
    lazy_kept, lazy_held = names(read(root).train)
    assert [lazy_kept - broken, lazy_held - broken] == [kept - broken, held - broken]


def test_a_class_of_few_keeps_a_readable_image_on_each_side(photographs, tmp_path):
    import shutil

    for name in ("china", "flower"):
        (tmp_path / name).mkdir()
        for path in sorted((photographs / name).iterdir())[:10]:
            shutil.copy(path, tmp_path / name)
    for number in range(2, 10):
        (tmp_path / "china" / f"{number:03}.jpg").unlink()
    (tmp_path / "china" / "002.jpg").write_bytes(b"no image")
    for seed in range(8):
        images = read(tmp_path).train
        kept, held = hold_out(images, seed=seed)
        assert (images.labels[kept] == 0).sum() == (images.labels[held] == 0).sum() == 1


def test_memory_that_shrinks_between_splits_stops_nothing(photographs, tmp_path, monkeypatch):
    import shutil

    for split in ("train", "val"):
        shutil.copytree(photographs, tmp_path / split)
    answers = iter([10**11, 1_000_000, 1_000_000])
    monkeypatch.setattr(Device, "free_bytes", lambda self: next(answers))
    sets = read(tmp_path)
    assert isinstance(sets.train.images, torch.Tensor)
    assert isinstance(sets.valid.images, torch.Tensor)


def test_a_file_that_vanishes_is_replaced(photographs, little_memory, tmp_path):
    import shutil

    from volano.data import Fetcher, Order

    root = shutil.copytree(photographs, tmp_path / "photographs")
    data = read(root).train.dataset()
    fetcher, order = Fetcher(data, None, 0), Order(num_examples=len(data), batch_size=16, seed=0)
    gone = data.path_of(int(order.key(0).indices[3]))
    (root / gone).unlink()
    (images, labels), faults = fetcher(order.key(0))
    assert len(images) == len(labels) == 16
    assert [fault.path for fault in faults] == [gone]
    assert faults[0].reason.startswith("FileNotFoundError")


class TestCache:
    def test_pixels_come_from_it_and_faults_stay_faults(self, photographs, little_memory, tmp_path, monkeypatch):
        import pickle
        import shutil

        root = shutil.copytree(photographs, tmp_path / "photographs")
        (root / "china" / "003.jpg").write_bytes(b"no image")
        plain = read(root).train.images
        cached = plain.cached(tmp_path / "cache")
        monkeypatch.setattr("volano.data.sources.image.image_files.decode", None)  # nothing is decoded any more
        rows = [5, 100, 2]
        picked = pickle.loads(pickle.dumps(cached.select(rows).select([1])))
        monkeypatch.undo()
        assert torch.equal(picked[0], plain[100])
        with pytest.raises(OSError, match="cannot identify"):
            cached[3]
        (folder,) = (tmp_path / "cache").iterdir()
        assert {path.name for path in folder.iterdir()} == {"pixels.npy", "faults.json"}
        plain.cached(tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == [folder]
        (root / "china" / "004.jpg").write_bytes((root / "china" / "005.jpg").read_bytes())
        assert torch.equal(read_image_sets(root, size=64).train.in_memory([4])[0], plain.select([5])[0][None])
        plain.cached(tmp_path / "cache")
        assert len(list((tmp_path / "cache").iterdir())) == 2  # a changed file: another cache

    def test_every_way_to_the_pixels_goes_through_it(self, photographs, little_memory, tmp_path, monkeypatch):
        import shutil
        from dataclasses import replace

        root = shutil.copytree(photographs, tmp_path / "photographs")
        (root / "china" / "003.jpg").write_bytes(b"no image")
        plain = read(root).train
        cached = replace(plain, images=plain.images.cached(tmp_path / "cache"))
        rows = [5, 3, 100, 2]
        expected, about = plain.in_memory(rows)
        shutil.rmtree(root)  # the pixels are in the cache
        pixels, mine = cached.in_memory(rows)
        assert torch.equal(pixels, expected)
        assert mine.names == about.names
        assert torch.equal(mine.labels, about.labels)
        assert [(fault.index, fault.path) for fault in mine.faults] == [(3, str(root / "china" / "003.jpg"))]
        assert mine.faults == about.faults
        assert len(cached.sample()[0]) == len(cached.first(1000)[0]) == 2 * NUM
        assert sum(len(part) for _, part in cached.parts()) == 2 * NUM

    def test_a_missing_file_has_a_row(self, photographs, tmp_path):
        paths = tuple(sorted((photographs / "flower").iterdir())[:3])
        gone = tmp_path / "gone.jpg"
        pixel_format = PixelFormat(channels=3, size=16)
        plain = ImageFiles(paths, pixel_format)
        assert torch.equal(plain.cached(tmp_path / "cache")[0], plain[0])
        more = ImageFiles((gone, *paths), pixel_format).cached(tmp_path / "cache")
        assert torch.equal(more[1], plain[0])
        with pytest.raises(OSError, match="No such file"):
            more[0]
        assert len(list((tmp_path / "cache").iterdir())) == 2

    def test_an_array_of_another_shape_is_named(self, photographs, tmp_path):
        images = ImageFiles(tuple(sorted((photographs / "flower").iterdir())[:3]), PixelFormat(channels=3, size=16))
        images.cached(tmp_path)
        (folder,) = tmp_path.iterdir()
        np.save(folder / "pixels.npy", np.zeros((2, 3, 16, 16), dtype=np.uint8))
        message = rf"{folder} \(pixels.npy and faults.json\).*\[2, 3, 16, 16\] instead of .*\[3, 3, 16, 16\].*Remove"
        with pytest.raises(DataError, match=message):
            images.cached(tmp_path)
        (folder / "faults.json").unlink()
        with pytest.raises(DataError, match=r"faults\.json"):
            images.cached(tmp_path)

    @pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
    def test_a_full_disk_is_an_error_that_leaves_nothing(self, photographs, tmp_path, monkeypatch, call):
        import errno
        import os

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        images = ImageFiles(tuple(sorted((photographs / "flower").iterdir())[:3]), PixelFormat(channels=3, size=16))
        monkeypatch.setattr(os, call, full)
        with pytest.raises(DataError, match=r"pixels\.npy and faults\.json.*No space left"):
            images.cached(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_file_system_that_cannot_reserve_space_still_holds_a_cache(self, photographs, tmp_path, monkeypatch):
        import errno
        import os

        def unsupported(*_):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        images = ImageFiles(tuple(sorted((photographs / "flower").iterdir())[:3]), PixelFormat(channels=3, size=16))
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
        assert torch.equal(images.cached(tmp_path)[2], images[2])

    def test_of_two_that_write_the_first_stands(self, photographs, tmp_path, monkeypatch):
        import os

        from volano.data.sources.image import image_cache

        images = ImageFiles(tuple(sorted((photographs / "flower").iterdir())[:3]), PixelFormat(channels=3, size=16))
        other = tmp_path / f"{image_cache._digest(images.paths, images.pixel_format)}.partial-{os.getpid()}"
        other.mkdir()  # of a process with this one's number, on another machine
        (other / "work").write_text("of somebody else")
        real, firsts = image_cache.decode, []

        def slow(path, pixel_format):
            if not firsts:
                firsts.append(None)
                firsts[0] = images.cached(tmp_path)
            return real(path, pixel_format)

        monkeypatch.setattr(image_cache, "decode", slow)
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        second = images.cached(tmp_path)
        assert torch.equal(second[1], images[1])
        assert torch.equal(firsts[0][1], images[1])
        assert (other / "work").read_text() == "of somebody else"
        assert len(list(tmp_path.iterdir())) == 2

    def test_it_leaves_half_of_the_disk(self, photographs, little_memory, tmp_path, monkeypatch):
        import shutil

        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**7, 9 * 10**6, 10**6))
        with pytest.raises(DataError, match="at most 50% of the free disk space"):
            read(photographs).train.images.cached(tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())

    def test_the_application_says_so(self, photographs, tmp_path, monkeypatch):
        options = ImageOptions(path=str(photographs), image_size=64, image_cache=str(tmp_path / "cache"), flip="no")
        assert any("image_cache has no effect" in notice for notice in ImageApplication.read(options).notices)
        monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000_000)
        application = ImageApplication.read(options)
        assert any("decoded once, into" in notice for notice in application.notices)
        assert not any("again" in notice for notice in application.notices)
        assert application.train.images.cache is not None
