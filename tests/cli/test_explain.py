"""``volano explain`` from the command line to the screen."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from cli.printing import printed
from report.explanations import make_explanation
from report.folders import make_run, write
from volano.cli.explain import is_script, name_first
from volano.cli.main import run
from volano.errors import ScriptError, UsageError
from volano.script.plan import ScriptPlan
from volano.script.search.explanation import ScriptExplanation


@pytest.fixture
def volano(command, monkeypatch, tmp_path):
    """``volano("explain", ...)``; plans are remembered in ``tmp_path``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return command


class TestCommand:
    @pytest.fixture
    def asked(self, monkeypatch):
        """What the command asks of the api, whose answer stands in ``asked["answer"]``."""
        # The door has a function of that name.
        verbs = importlib.import_module("volano.api.explain")
        asked = {"answer": make_explanation()}

        def answer(*arguments, **options):
            options["observer"] = bool(options["observer"])
            asked["arguments"], asked["options"] = arguments, options
            return asked["answer"]

        monkeypatch.setattr(verbs, "explain", answer)
        Path("mine.py").write_text("task = None")
        sys.modules.pop("mine", None)
        yield asked
        sys.modules.pop("mine", None)

    def test_a_task_of_ones_own(self, volano, asked):
        code, out, _ = volano(
            "explain", "mine:task", "--budget", "2GiB", "--forbid", "compile=yes", "--forbid",
            "precision=bf16", "--forbid", "precision=fp16", "--memory-format", "contiguous",
            "--device", "cpu", "--analyze", "--no-race",
        )  # fmt: skip
        assert code == 0
        assert out.startswith("Plan of digits\n")
        assert asked["arguments"] == ("mine:task",)
        assert asked["options"] == {
            "device": "cpu",
            "budget": 2 * 2**30,
            "analyze": True,
            "race": False,
            "observer": True,
            "on": None,
            "forbid": {"compile": (True,), "precision": ("bf16", "fp16")},
            "pins": {"memory_format": "contiguous"},
        }

    def test_an_application(self, volano, asked, tmp_path):
        code, _, _ = volano(
            "explain", "image", tmp_path, "--minutes", "2", "--size", "thin", "--on", "H100"
        )
        assert code == 0
        assert asked["arguments"] == ("image",)
        options = {"path": tmp_path, "on": "H100", "analyze": False, "minutes": 2.0, "size": "thin"}
        assert asked["options"] == {**options, "race": None, "observer": True}

    def test_json_is_one_line_and_no_means_exit_code_1(self, volano, asked):
        code, out, _ = volano("explain", "mine:task", "--json")
        assert code == 0
        assert json.loads(out) == json.loads(json.dumps(make_explanation().to_json()))
        assert out.count("\n") == 1
        asked["answer"] = make_explanation(verdict="NO")
        assert volano("explain", "mine:task", "--json")[0] == 1
        assert volano("explain", "mine:task")[0] == 1

    def test_a_run(self, volano, tmp_path):
        folder = make_run(tmp_path / "run", "image")
        write(folder / "explanation.json", make_explanation().to_json())
        code, out, _ = volano("explain", "run")
        assert code == 0
        assert out == printed(make_explanation().to_json())
        assert json.loads(volano("explain", "run", "--json")[1])["task"] == "digits"
        code, _, err = volano("explain", "run", "--budget", "1GiB")
        assert code == 2
        assert "No such option: --budget" in err
        (folder / "explanation.json").unlink()
        code, _, err = volano("explain", "run")
        assert code == 2
        assert "explanation.json" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nothing"], "an application, a task of your own, a run, or a script; got 'nothing'"),
            (
                ["mine:task", "--minutes", "1"],
                "No such option: --minutes.*is an option of: image, text",
            ),
            (["image", "--depth", "3"], "No such option: --depth.*--depth is an option of: text"),
            (
                ["mine:task", "--budget", "much"],
                "amount of memory must be a number of bytes.*; got 'much'",
            ),
            (["mine:task", "--forbid", "precision"], "written KNOB=VALUE; got 'precision'"),
            (["mine:task", "--forbid", "precision=fp8"], "--precision must be one of"),
        ],
    )
    def test_what_cannot_be_meant(self, volano, asked, arguments, message):
        code, out, err = volano("explain", *arguments)
        assert code == 2
        assert out == ""
        assert re.search(message, err.replace("\n", " "))
        assert "answer" in asked
        assert "arguments" not in asked


def test_a_refusal_of_the_planner_is_one_message(volano, monkeypatch):
    verbs = importlib.import_module("volano.api.explain")

    def refuse(*_, **__):
        raise UsageError("rule", got="this")

    monkeypatch.setattr(verbs, "explain", refuse)
    code, out, err = volano("explain", "mine:task", "--json")
    assert code == 2
    assert json.loads(out) == {"error": "rule; got this.", "kind": "UsageError"}
    assert "error: rule; got this." in err


def test_a_real_task_from_the_search_to_the_screen(volano, tmp_path):
    (tmp_path / "small.py").write_text(
        "import torch, volano\n"
        "from torch import nn\n"
        "from torch.utils.data import TensorDataset\n"
        "from sklearn.datasets import load_digits\n"
        "x, y = load_digits(return_X_y=True)\n"
        "data = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))\n"
        "def objective(model, batch):\n"
        "    return nn.functional.cross_entropy(model(batch[0]), batch[1])\n"
        "task = volano.Task(name='digits', model=lambda: nn.Linear(64, 10), data=data, "
        "objective=objective,\n"
        "    optimizer=torch.optim.SGD, batch_size=64, duration='2ep')\n"
    )
    arguments = ("explain", "small:task", "--device", "cpu", "--no-compile", "--race", "--json")
    code, out, err = volano(*arguments)
    assert code == 0, err
    record = json.loads(out)
    assert record["plan"]["compile"] is False
    assert record["verdict"] == "FITS", record["notices"]
    assert record["memory"]["parameters"] == 4 * (64 * 10 + 10)
    chosen = record["candidates"][0]
    assert (chosen["status"], chosen["measured_seconds"] > 0) == ("chosen", True)
    text = printed(record)
    assert "Plan of digits" in text
    assert f"Candidates ({len(record['candidates'])})" in text


# ---- scripts

VALUED = {"--steps", "--seconds", "--scratch", "--out"}


@pytest.mark.parametrize(
    ("line", "split"),
    [
        ("train.py", "train.py --"),
        ("train.py --steps 3 --json x", "train.py -- --steps 3 --json x"),
        ("--steps 20 --json train.py --lr 1", "train.py --steps 20 --json -- --lr 1"),
        ("--steps=20 train.py -m x", "train.py --steps=20 -- -m x"),
        ("image ./photos --size thin", "image ./photos --size thin"),
        ("train.py:task --json", "train.py:task --json"),
        ("--json image train.py", "--json image train.py"),
        ("--help", "--help"),
    ],
)
def test_what_stands_behind_a_script_is_the_scripts(line, split):
    assert name_first(line.split(), VALUED) == split.split()


def test_a_module():
    line = ["--seconds", "9", "-m", "a.b", "--json"]
    assert name_first(line, VALUED) == ["-m a.b", "--seconds", "9", "--", "--json"]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("train.py", True), ("b.ipynb", True), ("my.py:task", False), ("runs/x", False), ("", False)],
)
def test_what_is_a_script(name, is_one):
    assert is_script(name) == is_one


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("missing.py", "no such file: missing.py"),
        ("book.ipynb", "nbconvert --to script book.ipynb"),
        ("--steps 0 train.py", "--steps must be at least 1"),
        ("--check 1.5 train.py", "--check must be a share"),
        ("--seconds -1 train.py", "--seconds must be a number of seconds above 0"),
        ("--seconds 1e300 train.py", "--seconds must be a number of seconds above 0"),
        ("--scratch /tmp train.py", "--scratch must name something in the current folder"),
        ("--out page.pdf train.py", "--out must name a page or a plan; got page.pdf"),
        ("--out no/page.html train.py", "--out must lie in a folder; got no folder no"),
    ],
)
def test_what_a_script_and_its_options_must_be(line, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    assert run(["explain", *line.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_script_that_fails_ends_with_its_exit_code(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import sys\nprint(1)\nsys.exit('no data')\n")
    assert run(["explain", "--json", "train.py", "--json"]) == 1
    shown = capfd.readouterr()
    assert shown.err == (
        "note: --json stands behind train.py, whose own it is:\n"
        "  Volano's options stand before it\n"
        "no data\nerror: train.py must run by itself; got exit code 1.\n"
    )
    assert json.loads(shown.out)["kind"] == "ScriptError"


@pytest.mark.parametrize(("gain", "code"), [(1.0, 0), (1.2, 0), (1.3, 3)])
def test_a_script_that_could_be_faster_ends_with_its_own_exit_code(gain, code, monkeypatch, capsys):
    found = ScriptExplanation(
        script="train.py", arguments=(), device="cpu", num_steps=9, num_warmup_steps=3,
        step_seconds=1.0, split_step_seconds=1.0, parts=(), gain=gain, diff="--- a\n+++ b\n",
    )  # fmt: skip
    monkeypatch.setattr("volano.script.search.explain.explain_script", lambda *_, **__: found)
    assert run(["explain", "--check", "0.2", "--diff", "train.py"]) == code
    assert capsys.readouterr().out == "--- a\n+++ b\n"
    assert run(["explain", "--check", "0.2", "--json", "train.py"]) == code
    assert json.loads(capsys.readouterr().out)["gain"] == gain


def test_a_page_and_a_plan_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = ScriptPlan(fused=True)
    found = ScriptExplanation(
        script="train.py", arguments=(), device="cpu", num_steps=9, num_warmup_steps=3,
        step_seconds=1.0, split_step_seconds=1.0, parts=(), chosen=plan,
    )  # fmt: skip
    monkeypatch.setattr("volano.script.search.explain.explain_script", lambda *_, **__: found)
    assert run(["explain", "--out", "a.html", "--out", "b.json", "train.py"]) == 0
    assert capsys.readouterr().err == "written: a.html\nwritten: b.json\n"
    assert ScriptPlan.load(tmp_path / "b.json") == plan
    assert "train.py" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize("options", [[], ["--seconds", "9"]])
def test_a_module_is_explained_from_the_command_line(options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []

    def explained(script, **_):
        asked.append((script.target, script.is_module, script.arguments))
        raise ScriptError("package.train must run by itself", got="exit code 5", exit_code=5)

    monkeypatch.setattr("volano.script.search.explain.explain_script", explained)
    assert run(["explain", *options, "-m", "package.train", "--lr", "1"]) == 5
    assert asked == [("package.train", True, ("--lr", "1"))]
