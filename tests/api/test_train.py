"""The Python door: applications are trained by name, and what was trained is used in three
lines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import volano
from volano.errors import CheckpointError, UsageError
from volano.training import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("door") / "run"
    return volano.train(
        "image", epochs=3, size="tiny", flip="no", plan=volano.Plan.baseline("cpu"), out=out,
        observer=volano.Observer(),
    )  # fmt: skip


class TestTrain:
    def test_an_application_by_name(self, run):
        assert run.status == "finished"
        assert run.metrics["test_accuracy"] > 0.5
        assert run.details["is_held_out"] is True
        assert {"data", "plan", "train", "test", "total"} <= run.seconds.keys()
        source = RunFolder.open(run.path).read_json("run.json")["source"]
        assert (source["kind"], source["dials"]["size"], source["dials"]["flip"]) == (
            "image",
            "tiny",
            "no",
        )

    @pytest.mark.parametrize(
        ("what", "options", "message"),
        [
            (
                "image",
                {"siez": "thin"},
                "`siez` is no option of the image application. Like it: `size`",
            ),
            ("image", {"size": "huge"}, "`size` must be one of tiny, thin, base, wide; got 'huge'"),
            ("imagee", {}, "an application or a task of your own; got 'imagee'"),
            (7, {}, "an application or a task of your own; got 7"),
            ("text", {"classify": True}, "`classify` needs a path of labelled texts"),
        ],
    )
    def test_what_cannot_be(self, what, options, message):
        with pytest.raises(UsageError, match=message):
            volano.train(what, **options)

    def test_options_are_not_for_a_task(self, make_task):
        with pytest.raises(
            UsageError, match="`epochs` is an option of the applications only; got 3 with a task"
        ):
            volano.train(make_task(), epochs=3)

    def test_a_finished_run_has_nothing_left(self, run):
        with pytest.raises(UsageError, match="which is finished"):
            volano.resume(run.path)


class TestBudget:
    def test_it_has_a_unit(self, make_task):
        found = volano.explain(make_task(), budget="1kB", device="cpu")
        assert found.verdict == "NO"
        assert found.budget == 1000

    def test_what_is_no_amount(self, make_task):
        with pytest.raises(UsageError, match="a number of bytes, or one with a unit.*got 'much'"):
            volano.train(make_task(), budget="much")


@pytest.fixture(scope="module")
def model(run):
    return volano.load(run, device="cpu")


class TestLoad:
    def test_the_module_is_ready(self, model, run):
        assert not model.module.training
        for name, parameter in model.module.state_dict().items():
            assert torch.equal(parameter, run.model.state_dict()[name])
        assert model.classes == tuple("0123456789")
        assert "ImageModel" in repr(model)

    def test_pictures_arrays_tensors_and_files_give_the_same(self, model, tmp_path):
        digit = a_digit()
        picture = Image.fromarray(digit)
        picture.save(tmp_path / "one.png")
        expected = model.predict(tmp_path / "one.png")[0]
        for given in (picture, digit, torch.from_numpy(digit)[None], digit[..., None], [picture]):
            assert model.predict(given)[0].top == expected.top
        assert expected.label == expected.top[0][0]
        assert expected.probability == expected.top[0][1]
        both = model.predict([str(tmp_path / "one.png"), picture], top_k=20)
        assert len(both) == 2
        assert len(both[0].top) == 10

    def test_what_cannot_be_predicted(self, model):
        with pytest.raises(
            UsageError, match=r"bytes uint8 of 2 or 3 dimensions; got float64 \[8, 8\]"
        ):
            model.predict(np.zeros((8, 8)))
        with pytest.raises(UsageError, match="must exist; got nowhere.png"):
            model.predict("nowhere.png")
        with pytest.raises(UsageError, match="`top_k` must be a whole number above 0"):
            model.predict(np.zeros((8, 8), dtype=np.uint8), top_k=0)

    def test_evaluate(self, model, run):
        assert model.evaluate()["accuracy"] == pytest.approx(run.metrics["test_accuracy"], abs=0.02)

    def test_a_run_of_ones_own_task_has_its_own_model(self, make_task, tmp_path, quiet):
        run = volano.train(
            make_task(), plan=volano.Plan.baseline("cpu"), out=tmp_path / "run", observer=quiet
        )
        with pytest.raises(UsageError, match="the run of a task of your own"):
            volano.load(run)

    def test_a_run_that_has_not_ended(self, run, tmp_path):
        import shutil

        shutil.copytree(run.path, tmp_path / "run")
        (tmp_path / "run" / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="volano resume"):
            volano.load(tmp_path / "run")


def a_digit():
    from sklearn.datasets import load_digits

    return (load_digits().images[3] * 15.9).astype(np.uint8)
