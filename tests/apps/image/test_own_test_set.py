"""A run's test set is the run's, whatever becomes of the source."""

import json

import numpy as np
import pytest
from PIL import Image

import volano
from volano.apps.kinds import task_of
from volano.errors import DataError
from volano.training import RunFolder


def noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    for number in range(60):
        noise(tmp_path / "noise" / "ab"[number % 2] / f"{number:02}.png", number)
    return tmp_path / "noise"


@pytest.fixture
def run(root, tmp_path):
    volano.train(
        "image", root, epochs=1, batch_size=16, size="tiny", flip="no", out=tmp_path / "run",
        observer=volano.Observer(), plan=volano.Plan.baseline(),
    )  # fmt: skip
    return tmp_path / "run"


def evaluated(run, path=None):
    result = volano.load(run, device="cpu").evaluate(path)
    return result["confusion"], " | ".join(result["notices"])


def test_it_is_evaluated_whatever_is_new(root, run):
    first, notices = evaluated(run)
    assert "changed" not in notices
    names = json.loads((run / "splits.json").read_text())["splits"]["test"]["names"]
    assert sum(map(sum, first)) == len(names)
    for number in range(100, 108):
        noise(root / "a" / f"0-{number}.png", number)
    noise(root / "c" / "new.png", 99)
    again, notices = evaluated(run)
    assert again == first
    assert "changed since the run: 9 images are new, and are not evaluated (a/0-100.png" in notices
    assert task_of(RunFolder.open(run)).num_steps > 0  # it could go on as well


def test_what_is_missing_and_what_has_another_class_is_said(root, run):
    splits = json.loads((run / "splits.json").read_text())["splits"]
    first, second = splits["test"]["names"][:2]
    (root / first).unlink()
    (root / second).rename(root / ("b" if second[0] == "a" else "a") / "moved.png")
    (root / splits["train"]["names"][0]).unlink()
    confusion, notices = evaluated(run)
    assert sum(map(sum, confusion)) == len(splits["test"]["names"]) - 2
    assert f"test images are missing: the figures are of the others ({first})" in notices
    assert "images that the run was trained on are missing" in notices
    assert "1 images have another class now" in notices
    with pytest.raises(volano.VolanoError, match="must be there to continue it; got .* missing"):
        task_of(RunFolder.open(run))


def test_nothing_left_of_it_is_refused(root, run):
    for name in json.loads((run / "splits.json").read_text())["splits"]["test"]["names"]:
        (root / name).unlink()
    with pytest.raises(DataError, match="own test images must be there; got none of"):
        evaluated(run)


def test_images_that_were_trained_on_are_said(root, run):
    splits = json.loads((run / "splits.json").read_text())["splits"]
    count = len(splits["train"]["names"])
    assert (
        f"{count} of the 60 tested images are among those that the run was trained on"
        in (evaluated(run, root)[1])
    )


def test_copies_of_training_images_in_a_test_folder_are_said(root, tmp_path):
    import shutil

    shutil.copytree(root, tmp_path / "both" / "train")
    shutil.copytree(root / "a", tmp_path / "both" / "test" / "a")
    from volano.apps.image.application import ImageApplication
    from volano.apps.image.options import ImageOptions

    found = ImageApplication.read(ImageOptions(path=str(tmp_path / "both"), flip="no"))
    assert "30 of the 30 tested images are among those to train on" in " | ".join(found.notices)
