"""How plans are given on the command line."""

import json
import re
from pathlib import Path

import pytest

from volano.cli import commands
from volano.cli.main import app, run

SHORT = ["--epochs", "1", "--batch-size", "128"]


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """``call("train", ...)`` -> exit code, the last line's JSON or None, standard error."""
    commands.register(app)
    monkeypatch.chdir(tmp_path)

    def volano(*arguments):
        code = run([*map(str, arguments), "--json"])
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        return code, json.loads(lines[-1]) if lines else None, captured.err

    return volano


def test_no_plan_is_plain_eager_with_pins(call):
    code, record, _ = call(
        "train", "image", *SHORT, "--no-plan", "--micro-batch", "64", "--out", "run"
    )
    assert code == 0
    changed = {
        k: v
        for k, v in record["plan"].items()
        if k in ("optimizer", "feed", "allocator", "micro_batch")
    }
    assert changed == {
        "optimizer": "as_given",
        "feed": "ring",
        "allocator": "system",
        "micro_batch": 64,
    }


def test_the_plan_of_another_run(call):
    assert call("train", "image", *SHORT, "--out", "one")[0] == 0
    code, record, _ = call("train", "image", *SHORT, "--plan", "one/plan.json", "--out", "two")
    assert code == 0
    assert record["plan"] == json.loads(Path("one/plan.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "nowhere.json"], "plan's file must be readable"),
        (["--no-plan", "--budget", "1GiB"], "--no-plan is plain eager PyTorch"),
        (["--budget", "much"], "amount of memory"),
        (["--forbid", "speed=1"], "knobs"),
        (["--forbid", "precision"], "KNOB=VALUE|knob=value"),
        (["--budget", "1MiB"], "Give a budget of"),
    ],
)
def test_what_cannot_be_meant(call, arguments, message):
    code, record, _ = call("train", "image", *SHORT, *arguments, "--out", "run")
    assert code == 2
    assert re.search(message, record["error"]), record["error"]


def test_a_budget_that_fits(call):
    code, record, _ = call("train", "image", *SHORT, "--budget", "2GiB", "--out", "run")
    assert code == 0
    assert json.loads(Path("run/explanation.json").read_text())["verdict"] == "FITS"
    assert record["plan"]["micro_batch"] is None
