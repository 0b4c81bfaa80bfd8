"""Code that has changed since a run began is refused, and taken if the person says so."""

from __future__ import annotations

import json

import pytest
import torch

import volano
from outside.test_strangers_folders import OWN
from volano.cli.main import run as run_command
from volano.errors import CheckpointError
from volano.task.code_digest import code_of


def test_changed_code_is_taken_by_its_name(tmp_path, monkeypatch, capsys, quiet):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    volano.train(
        "mine.py:task", plan=volano.Plan.baseline("cpu"), out=tmp_path / "run", observer=quiet
    )
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "status": "stopped"}))
    (tmp_path / "mine.py").write_text(OWN.replace(".square().mean()", ".abs().mean()"))
    resume = ["resume", str(tmp_path / "run"), "--code", "mine.py:task"]
    assert run_command(resume) == 1
    said = capsys.readouterr().err
    assert "the code of objective" in said
    assert "--accept" in said
    assert run_command([*resume, "--accept", "objectiv"]) == 2
    assert "--accept must name code: objective, forward" in capsys.readouterr().err
    assert run_command([*resume, "--accept", "forward"]) == 1
    capsys.readouterr()
    assert run_command([*resume, "--accept", "objective", "--accept", "augment"]) == 0
    assert "the code of objective is not that with which" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_compared_by_its_own_rule(make_task, tmp_path, quiet):
    """Its digests know of no values; the body of a function counts by either rule."""

    def task(body, scale):
        names = {"loss_of": torch.nn.functional.cross_entropy, "SCALE": scale}
        exec(f"def objective(model, batch):\n    return {body} * SCALE", names)
        return make_task(objective=names["objective"], duration="2st")

    body, other = "loss_of(model(batch[0]), batch[1])", "loss_of(-model(batch[0]), batch[1])"
    plan = volano.Plan.baseline("cpu")
    run = volano.train(task(body, 1.5), plan=plan, out=tmp_path / "run", observer=quiet)

    def earlier(form):
        record = json.loads((run.path / "run.json").read_text())
        (run.path / "run.json").write_text(json.dumps({**record, "status": "stopped"}))
        described = json.loads((run.path / "task.json").read_text())
        made = task(body, 1.5)
        described["code"] = code_of(made, made.model(), form)
        (run.path / "task.json").write_text(json.dumps(described))

    earlier("3")
    with pytest.raises(CheckpointError, match="the code of objective"):
        volano.resume(run.path, task=task(body, 2.5), observer=quiet)
    earlier("2")
    described = json.loads((run.path / "task.json").read_text())
    (run.path / "task.json").write_text(json.dumps({**described, "digest": "another"}))
    with pytest.raises(CheckpointError, match="the code of objective"):
        volano.resume(run.path, task=task(other, 1.5), observer=quiet)
