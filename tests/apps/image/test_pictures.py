"""What a run of the image application leaves to look at."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import volano
from volano.apps.image import pictures
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.plan import Plan
from volano.training import RunFolder, Session

SMALL = {"epochs": 2.0, "size": "tiny", "flip": "no"}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Of two epochs on the embedded digits."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "run"
    return volano.train("image", out=out, device="cpu", observer=volano.Observer(), **SMALL)


class TestImageRun:
    def test_scores_and_pictures_are_there(self, result):
        folder = result.path
        scores = json.loads((folder / "eval-test.json").read_text())
        assert scores["accuracy"] == result.metrics["test_accuracy"]
        assert np.sum(scores["confusion"]) == result.metrics["num_test"]
        for name in ("eval-test.png", "top-losses.png", "augmented.png"):
            with Image.open(folder / name) as picture:
                assert min(picture.size) > 100

    def test_the_hardest_images_are_those_of_the_test_set(self, result):
        folder = result.path
        items = json.loads((folder / "top-losses.json").read_text())["items"]
        assert len(items) == 12
        losses = [item["loss"] for item in items]
        assert losses == sorted(losses, reverse=True)
        test = ImageApplication.read(ImageOptions(**SMALL)).test
        with Image.open(folder / "top-losses.png") as sheet:
            for item in items:
                row = test.names.index(item["name"])
                assert test.classes[test.labels[row]] == item["true"]
                # 8 pixels magnified to 96.
                tile = np.asarray(sheet.crop(item["box"]))[6::12, 6::12, 0]
                assert np.array_equal(tile, test.images[row, 0].numpy())

    def test_the_augmented_images_are_the_first_batch_of_the_run(self, result):
        application = ImageApplication.read(ImageOptions(**SMALL))
        task = application.task(application.steps_in(2.0))
        seen = []

        def look(model, batch):
            seen.append(batch[0].clone())
            return task.objective(model, batch)

        plan = Plan.load(result.path / "plan.json")
        session = Session(
            dataclasses.replace(task, objective=look), plan, on_notice=lambda text: None
        )
        batch = next(iter(session.feed.batches(session.order.keys(0, 1))))
        session.step_once(batch, 0)
        with Image.open(result.path / "augmented.png") as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        first = pixels[6:96:12, 6:96:12, 0]
        second = pixels[6:96:12, 106:196:12, 0]
        assert np.array_equal(first, seen[0][0, 0].numpy())
        assert np.array_equal(second, seen[0][1, 0].numpy())

    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), KeyError("No space left on device")]
    )
    def test_pictures_that_fail_are_a_notice(self, tmp_path, quiet, monkeypatch, error):
        def fail(*arguments):
            raise error

        monkeypatch.setattr(pictures, "draw_sheet", fail)
        options = {**SMALL, "epochs": 0.1, "device": "cpu"}
        result = volano.train("image", out=tmp_path / "run", observer=quiet, **options)
        assert result.metrics["test_accuracy"] > 0
        assert "No space left on device" in result.notices[-1]
        assert "augmented.png is not there" in (result.path / "report.html").read_text()


def test_the_figures_of_a_folder_that_cannot_be_written_to_are_told(tmp_path):
    def draw(scores, origin, picture):
        raise OSError(30, "Read-only file system")

    folder, target = RunFolder(tmp_path / "gone"), SimpleNamespace(picture="confusion", draw=draw)
    arguments = (folder, "other", target, {"accuracy": 0.5}, [], "photos")
    found = pictures.write_scores(*arguments, may_fail=True)
    assert found["accuracy"] == 0.5
    assert "picture" not in found
    assert found["notices"] == ["not kept: OSError: [Errno 30] Read-only file system"]
    with pytest.raises(OSError, match="Read-only"):
        pictures.write_scores(*arguments)
