"""Code that has changed since a run began is refused, and taken if the person says so."""

from __future__ import annotations

import json

import volano
from outside.test_strangers_folders import OWN
from volano.cli.main import run as run_command


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
