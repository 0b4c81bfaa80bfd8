"""The report at the end of a run, and the verb that writes one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

import volano
from report.folders import make_run
from volano.apps.image import pictures
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.errors import RunError, UsageError
from volano.plan import Plan
from volano.running import end_run
from volano.running.end_run import write_report
from volano.training import RunFolder, Session
from volano.training.signals import StopRequest


@pytest.fixture
def broken(monkeypatch):
    """``broken(error)``: writing a page fails."""

    def install(error):
        def fail(run):
            raise error

        monkeypatch.setattr(end_run, "write_page", fail)

    return install


class TestAtTheEnd:
    def test_a_finished_task_of_ones_own_has_a_page(self, make_task, tmp_path, quiet):
        run = volano.train(make_task(), out=tmp_path / "run", device="cpu", observer=quiet)
        page = (run.path / "report.html").read_text(encoding="utf-8")
        assert "trained on 512 examples for 2 epochs, 32 steps of 32 examples" in page
        assert f"{run.metrics['valid_loss']:.4g}" in page
        assert "What this page lacks" not in page

    def test_a_stopped_run_has_none_and_a_resumed_one_does(self, make_task, tmp_path, quiet, monkeypatch):
        monkeypatch.setattr(
            StopRequest, "requested", property(lambda self: True, lambda self, value: None), raising=False
        )
        run = volano.train(make_task(), out=tmp_path / "run", device="cpu", observer=quiet)
        assert run.status == "stopped"
        assert not (run.path / "report.html").exists()
        monkeypatch.undo()
        volano.resume(run.path, task=make_task(), observer=quiet)
        assert (run.path / "report.html").exists()

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (
                RunError("The report can be written", got="a full disk"),
                "no report: The report can be written; got a full",
            ),
            (ZeroDivisionError("nobody thought of that"), "no report: ZeroDivisionError: nobody thought of that"),
        ],
    )
    def test_a_page_that_fails_is_a_notice(self, make_task, tmp_path, quiet, broken, error, told):
        broken(error)
        run = volano.train(make_task(), out=tmp_path / "run", device="cpu", observer=quiet)
        assert run.status == "finished"
        assert run.notices[-1].startswith(told)
        assert quiet.notices[-1] == run.notices[-1]
        assert RunFolder.open(run.path).read_json("run.json")["notices"] == list(run.notices)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Of two epochs on the embedded digits."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "run"
    return volano.train("image", epochs=2, out=out, device="cpu", observer=volano.Observer())


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
        test = ImageApplication.read(ImageOptions(epochs=2, flip="no")).test
        with Image.open(folder / "top-losses.png") as sheet:
            for item in items:
                row = test.names.index(item["name"])
                assert test.classes[test.labels[row]] == item["true"]
                tile = np.asarray(sheet.crop(item["box"]))[6::12, 6::12, 0]  # 8 pixels magnified to 96
                assert np.array_equal(tile, test.images[row, 0].numpy())

    def test_the_augmented_images_are_the_first_batch_of_the_run(self, result):
        application = ImageApplication.read(ImageOptions(epochs=2, flip="no"))
        task = application.task(application.steps_in(2.0))
        seen = []

        def look(model, batch):
            seen.append(batch[0].clone())
            return task.objective(model, batch)

        plan = Plan.load(result.path / "plan.json")
        session = Session(dataclasses.replace(task, objective=look), plan, on_notice=lambda text: None)
        batch = next(iter(session.feed.batches(session.order.keys(0, 1))))
        session.step_once(batch, 0)
        with Image.open(result.path / "augmented.png") as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        first = pixels[6:96:12, 6:96:12, 0]
        second = pixels[6:96:12, 106:196:12, 0]
        assert np.array_equal(first, seen[0][0, 0].numpy())
        assert np.array_equal(second, seen[0][1, 0].numpy())

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("No space left on device")])
    def test_pictures_that_fail_are_a_notice(self, tmp_path, quiet, monkeypatch, error):
        def fail(*arguments):
            raise error

        monkeypatch.setattr(pictures, "draw_sheet", fail)
        result = volano.train("image", epochs=1, out=tmp_path / "run", device="cpu", observer=quiet)
        assert result.metrics["test_accuracy"] > 0
        assert "No space left on device" in result.notices[-1]
        assert "augmented.png is not there" in (result.path / "report.html").read_text()


class TestVerb:
    def test_one_run_or_several(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        runs = [make_run(tmp_path / name, "python") for name in ("a", "b")]
        assert write_report(runs[0]) == runs[0] / "report.html"
        assert write_report(str(runs[0]), out="page.html").read_text() == (runs[0] / "report.html").read_text()
        assert "2 runs compared" in write_report(*runs).read_text()

    def test_none(self):
        with pytest.raises(UsageError, match="one run or more"):
            write_report()


@pytest.mark.parametrize(("others", "out"), [(["another"], None), ([], "page.html")])
def test_a_study_has_a_page_of_its_own(tmp_path, others, out):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    with pytest.raises(UsageError, match=r"about it alone.*Say volano report .*study"):
        write_report(tmp_path / "study", *(tmp_path / name for name in others), out=out)
