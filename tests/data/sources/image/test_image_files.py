"""Folders of images that do not fit into memory train as those that do."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import volano
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.apps.kinds import task_of
from volano.data.sources import (
    ImageFiles,
    ImageFilesDataset,
    PixelFormat,
    WantedFormat,
    hold_out,
    read_image_sets,
)
from volano.data.sources.image import image_files as image_files_module
from volano.data.sources.image import images as images_module
from volano.device import Device
from volano.errors import DataError
from volano.task.describe import describe
from volano.training import RunFolder

NUM = 60  # of each class, see conftest.py


def read(root):
    return read_image_sets(root, WantedFormat(size=64))


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
    assert [[sets.train.names[row] for row in rows] for rows in groups] == [
        ["china/007.jpg", "china/copy.jpg"]
    ]


def test_of_files_of_one_size_only_likely_copies_are_read_whole(photographs, tmp_path, monkeypatch):
    for path in sorted((photographs / "flower").iterdir())[:12]:
        # Every bitmap of so many pixels is of one size.
        Image.open(path).save(tmp_path / f"{path.stem}.bmp")
    paths = sorted(tmp_path.iterdir())
    assert len({path.stat().st_size for path in paths}) == 1
    paths[9].write_bytes(paths[4].read_bytes())
    changed = bytearray(paths[4].read_bytes())
    changed[60] ^= 1  # far from the middle
    paths[2].write_bytes(changed)
    read_whole = []
    real = image_files_module._content
    monkeypatch.setattr(
        image_files_module, "_content", lambda path: read_whole.append(path) or real(path)
    )
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
    application = ImageApplication.read(
        ImageOptions(path=str(photographs), image_size=64, flip="no")
    )
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
        DataError,
        match=r"At most 10% of the images may be unreadable; got \d+ of \d+; the first: .*\.jpg",
    ):
        ImageApplication.read(ImageOptions(path=str(root), image_size=64))


def test_a_folder_is_trained_on_and_faults_are_listed(photographs, little_memory, tmp_path):
    import shutil

    root = shutil.copytree(photographs, tmp_path / "photographs")
    broken = root / "flower" / "011.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    result = volano.train(
        "image",
        root,
        epochs=1,
        size="tiny",
        image_size=64,
        batch_size=16,
        out=tmp_path / "run",
        observer=volano.Observer(),
    )
    assert result.status == "finished"
    assert any("decoded again" in notice for notice in result.notices)
    assert any(notice.startswith("workers=") for notice in result.notices)
    faults = [
        json.loads(line)
        for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    ]
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
        epochs=1,
        size="tiny",
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
    # A broken one whose copy is whole is tested as that copy.
    alone = sorted(held - {"china/007.jpg"})
    broken = {sorted(kept)[5], alone[0], alone[-1]}
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
