"""``volano train``: how plans are given, and whose options there are."""

import json
import re
from pathlib import Path

import pytest

from volano.apps.kinds import APPLICATIONS
from volano.cli import commands
from volano.cli.main import app, run
from volano.cli.train import help_of, how_options, options_of, planning
from volano.errors import UsageError

SHORT = ["--epochs", "1", "--batch-size", "128", "--size", "tiny", "--flip", "no"]


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
        (
            ["--no-plan", "--budget", "1GiB"],
            "--no-plan, which is plain eager PyTorch, must come without",
        ),
        (["--budget", "much"], "amount of memory"),
        (["--forbid", "speed=1"], "A plan's knob"),
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


def values_of(**given):
    """What a command line of ``volano train`` gives, if only these options were written."""
    return {parameter.name: parameter.default for parameter in how_options()} | given


class TestPlanning:
    def test_only_what_was_given_is_passed_on(self):
        assert planning(values_of()) == {}
        assert planning(values_of(device="cpu", compile=False, threads=2)) == {
            "device": "cpu",
            "pins": {"compile": False, "threads": 2},
        }

    def test_amounts_and_forbidden_values_are_read(self):
        found = planning(values_of(budget="2GiB", forbid=["precision=bf16", "precision=fp16"]))
        assert found == {"budget": 2 * 2**30, "forbid": {"precision": ("bf16", "fp16")}}


class TestOptionsOf:
    def test_an_application_has_its_own_and_a_task_has_none(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine.py").write_text("task = 3\n")
        assert options_of("video", "x", "y") is APPLICATIONS["video"]
        assert options_of("mine.py:task", "x", "y") is None
        assert options_of("", "x", "y") is None

    def test_what_names_nothing_says_what_there_is(self):
        with pytest.raises(UsageError) as caught:
            options_of("cats", "The rule", "module:task")
        assert str(caught.value) == (
            "The rule; got 'cats'. Write image, text, video, or module:task."
        )

    def test_every_application_has_a_sentence(self):
        assert all(help_of(name).endswith(".") for name in APPLICATIONS)
        assert help_of("mine.py:App") == "Train the application mine.py:App."


def test_options_of_a_trial_need_a_study(call):
    code, record, _ = call("train", "--trial", "3")
    assert code == 2
    assert "--trial is for a trial of a study; got 3 without --from" in record["error"]
