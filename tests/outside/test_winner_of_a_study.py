"""The winner of a study is a run like any other of its application."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import volano
from volano.api.train import train_trial
from volano.apps.image.options import ImageOptions
from volano.apps.study_build import task_of_trial
from volano.apps.text.options import TextOptions
from volano.cli.main import run as run_command
from volano.errors import CheckpointError
from volano.training import RunFolder

NUMBERS = {
    "image": {"rest_lr": 0.02, "label_smoothing": 0.05},
    "text": {"dropout": 0.1, "matrix_lr": 0.03},
}


def write_study(path, kind, options):
    """A study of two trials, as one leaves it; the second is the best."""
    dials = {**options.to_json(), "num_steps": None}
    facts = {
        "schema_version": 1, "status": "finished", "name": "study",
        "settings": {"metric": "loss", "direction": "minimize", "trials": 2},
        "source": {
            "kind": kind, "dials": dials, "num_steps": 6,
            "space": {name: {"low": 0.0, "high": 1.0} for name in NUMBERS[kind]},
        },
    }  # fmt: skip
    rung = {
        "event": "rung", "rung": 0, "share": 1.0, "step": 6, "epoch": 0.1, "metrics": {},
        "training_loss": 1.0, "seconds": 1.0, "worker": 0,
    }  # fmt: skip
    events = []
    for number, value in enumerate((2.0, 1.0)):
        params = dict(NUMBERS[kind]) if number else dict.fromkeys(NUMBERS[kind], 0.5)
        events += [
            {"event": "asked", "trial": number, "params": params, "at": 0.0},
            {**rung, "trial": number, "value": value, "at": 1.0},
            {"event": "ended", "trial": number, "state": "complete", "reason": None, "at": 1.0},
        ]
    path.mkdir()
    (path / "study.json").write_text(json.dumps(facts))
    (path / "trials.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    return path


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    """A study of images, and its winner, trained."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("winner")
    study = write_study(root / "study", "image", ImageOptions(size="tiny", flip="no", seed=4))
    arguments = ["train", "--from", str(study), "--no-plan", "--out", str(root / "run")]
    assert run_command(arguments) == 0
    return study, root / "run"


def test_it_computes_what_the_trial_did(of_images, quiet, tmp_path):
    study, path = of_images
    task, number = task_of_trial(study)
    alone = volano.train(task, plan=volano.Plan.baseline("cpu"), out=tmp_path / "r", observer=quiet)
    weights = load_file(path / "model.safetensors")
    for name, tensor in load_file(alone.path / "model.safetensors").items():
        assert torch.equal(weights[name], tensor), name
    source = json.loads((path / "run.json").read_text())["source"]
    assert (source["kind"], source["trial"], number) == ("image", 1, 1)
    assert json.loads(source["dials"]["tried"]) == NUMBERS["image"]
    assert source["again"]["words"][:3] == ["volano", "train", "--from"]


def test_it_is_used_like_any_other(of_images, capsys, tmp_path):
    _, path = of_images
    model = volano.load(path, device="cpu")
    figures = json.loads((path / "run.json").read_text())["metrics"]
    assert model.evaluate()["accuracy"] == pytest.approx(figures["test_accuracy"], abs=0.02)
    for arguments in (
        ["eval", str(path)],
        ["export", str(path), "--to", "safetensors", "--out", str(tmp_path / "w.safetensors")],
        ["report", str(path)],
    ):
        assert run_command(arguments) == 0, capsys.readouterr().err
    picture = torch.zeros(8, 8, dtype=torch.uint8)
    assert model.predict(picture)[0].label in model.classes


def test_it_goes_on_when_it_was_stopped(of_images, quiet):
    _, path = of_images
    folder = RunFolder.open(path)
    before = load_file(path / "model.safetensors")
    folder.update_run(status="stopped", metrics={})
    run = volano.resume(path, observer=quiet)
    assert run.status == "finished"
    assert "test_accuracy" in run.metrics
    for name, tensor in load_file(path / "model.safetensors").items():
        assert torch.equal(before[name], tensor)


def test_its_numbers_are_those_of_a_recipe(of_images, quiet):
    _, path = of_images
    folder = RunFolder.open(path)
    record = folder.read_json("run.json")
    dials = {**record["source"]["dials"], "tried": '{"nonsense": 1}'}
    folder.update_run(status="stopped", metrics={}, source={**record["source"], "dials": dials})
    with pytest.raises(CheckpointError, match="must be those of the application's recipe"):
        volano.resume(path, observer=quiet)
    folder.update_run(**{name: record[name] for name in ("status", "metrics", "source")})


def test_a_language_model_writes(tmp_path, quiet):
    texts = tmp_path / "texts"
    texts.mkdir()
    source = Path(argparse.__file__).read_text(encoding="utf-8")[:40_000]
    (texts / "a.txt").write_text(source, encoding="utf-8")
    options = TextOptions(path=str(texts), depth=2, context=32, batch_size=4, num_evaluations=1)
    study = write_study(tmp_path / "study", "text", options)
    run = train_trial(
        study, out=tmp_path / "run", observer=quiet,
        planning={"plan": volano.Plan.baseline("cpu")},
    )  # fmt: skip
    assert run.metrics["bits_per_byte"] > 0
    model = volano.load(run, device="cpu")
    assert len("".join(model.generate(prompt="def ", tokens=4))) > 0
    assert model.evaluate()["bits_per_byte"] == pytest.approx(run.metrics["bits_per_byte"])
