"""Folders of images that do not fit into memory train as those that do."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import volano
from volano.api.image import train_image
from volano.api.image_results import eval_image
from volano.apps.image.problem import ImageDials, read_problem
from volano.data.sources import ImageFiles, PixelFormat, hold_out, read_image_sets
from volano.data.sources import image_files as image_files_module
from volano.data.sources import images as images_module
from volano.device import Device
from volano.errors import DataError

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
    problem = read_problem(ImageDials(path=str(photographs), image_size=64))
    assert 20 <= len(problem.patches) <= 30
    assert 60 < problem.spec.mean[0] < 190


def test_the_digest_goes_by_content(photographs, little_memory, tmp_path):
    import shutil

    def digest(root):
        return read(root).train.dataset().fingerprint()

    first = digest(photographs)
    elsewhere = shutil.copytree(photographs, tmp_path / "elsewhere")
    assert digest(elsewhere) == first
    (elsewhere / "china" / "000.jpg").unlink()
    assert digest(elsewhere) != first


def test_a_folder_is_trained_on_and_faults_are_listed(photographs, little_memory, tmp_path):
    import shutil

    root = shutil.copytree(photographs, tmp_path / "photographs")
    broken = root / "flower" / "011.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    result = train_image(root, epochs=2, image_size=64, batch_size=16, out=tmp_path / "run", observer=volano.Observer())
    assert result.run.status == "finished"
    assert any("decoded again" in notice for notice in result.run.notices)
    assert any(notice.startswith("workers=") for notice in result.run.notices)
    faults = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert {fault["path"] for fault in faults} == {str(broken)}
    scores = eval_image(tmp_path / "run", device="cpu")
    assert scores["accuracy"] == result.metrics["test_accuracy"]


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
        monkeypatch.setattr("volano.data.sources.image_files.decode", None)  # nothing is decoded any more
        rows = [5, 100, 2]
        picked = pickle.loads(pickle.dumps(cached.select(rows).select([1])))
        monkeypatch.undo()
        assert torch.equal(picked[0], plain[100])
        with pytest.raises(OSError, match="cannot identify"):
            cached[3]
        names = {path.name for path in (tmp_path / "cache").iterdir()}
        assert len(names) == 2
        plain.cached(tmp_path / "cache")
        assert {path.name for path in (tmp_path / "cache").iterdir()} == names
        (root / "china" / "004.jpg").write_bytes((root / "china" / "005.jpg").read_bytes())
        assert torch.equal(read_image_sets(root, size=64).train.in_memory([4])[0], plain.select([5])[0][None])
        plain.cached(tmp_path / "cache")
        assert len(list((tmp_path / "cache").iterdir())) == 4  # a changed file: another cache

    def test_it_leaves_half_of_the_disk(self, photographs, little_memory, tmp_path, monkeypatch):
        import shutil

        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**7, 9 * 10**6, 10**6))
        with pytest.raises(DataError, match="at most 50% of the free disk space"):
            read(photographs).train.images.cached(tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())

    def test_the_application_says_so(self, photographs, tmp_path, monkeypatch):
        dials = ImageDials(path=str(photographs), image_size=64, image_cache=str(tmp_path / "cache"), flip="no")
        assert any("image_cache has no effect" in notice for notice in read_problem(dials).notices)
        monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000_000)
        problem = read_problem(dials)
        assert any("decoded once, into" in notice for notice in problem.notices)
        assert not any("again" in notice for notice in problem.notices)
        assert problem.train.images.cache is not None
