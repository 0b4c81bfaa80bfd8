"""Folders that earlier versions wrote are resumed, evaluated, reported and trained from.

``v0_1`` was written before Volano's modules moved: a run of a task that was stopped at step 9 of
16, one of the image application that was stopped at step 3, and a study of four trials.
``kept_task.py`` has their code.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from volano.cli import commands
from volano.cli.main import app, run

FOLDER = Path(__file__).parent / "v0_1"


@pytest.fixture
def earlier(tmp_path, monkeypatch, capsys):
    """``earlier("resume", "stopped")`` -> what the command prints, beside copies of the folders."""
    commands.register(app)
    shutil.copytree(FOLDER, tmp_path / "kept")
    monkeypatch.chdir(tmp_path / "kept")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "kept"), *sys.path])
    monkeypatch.delitem(sys.modules, "kept_task", raising=False)

    def call(*arguments: str) -> dict:
        code = run([*arguments, "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out.splitlines()[-1])

    return call


def test_a_run_of_a_task_goes_on_to_its_end(earlier):
    assert earlier("resume", "stopped", "--code", "kept_task:task")["metrics"]["valid_loss"] < 2.3
    record = json.loads(Path("stopped/run.json").read_text())
    assert (record["status"], record["step"]) == ("finished", 16)
    earlier("report", "stopped")
    assert Path("stopped/report.html").is_file()


def test_a_run_of_an_application_goes_on_and_is_evaluated(earlier):
    finished = earlier("resume", "image")["metrics"]
    assert earlier("eval", "image")["accuracy"] == finished["test_accuracy"]
    earlier("report", "image")
    assert Path("image/report.html").is_file()


def test_a_study_is_reported_goes_on_and_its_best_is_trained(earlier):
    earlier("report", "study")
    assert Path("study/report.html").is_file()
    assert len(Path("study/trials.jsonl").read_text().splitlines()) > 0
    earlier("train", "kept_task:build", "--from", "study", "--no-plan", "--out", "best")
    assert json.loads(Path("best/run.json").read_text())["status"] == "finished"
    earlier("explore", "--resume", "study", "--trust", "--trials", "6", "--workers", "1")


def test_another_task_is_still_refused(earlier, capsys):
    path = Path("kept_task.py")
    path.write_text(path.read_text().replace("batch_size=64", "batch_size=32"))
    assert run(["resume", "stopped", "--trust"]) != 0
    assert "batch_size: 32 != 64" in capsys.readouterr().err
