"""Nonsense on the command line ends in a sentence: never in a traceback, never "not foreseen".

In this process, for a new one takes seconds; what would train, measure or read an embedded sample
is refused in its place.
"""

from __future__ import annotations

import json
import os
import sys

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st

from cli.test_surface import OWN, PLAN, RUN, SHARED, STUDY, SURFACE
from volano.cli.main import run
from volano.errors import RunError

# Not --debug, which shows tracebacks on purpose.
FLAGS = sorted(
    {
        flag
        for flags in (
            SHARED,
            PLAN,
            RUN,
            STUDY,
            "--from --trial --help",
            *OWN.values(),
            *SURFACE.values(),
        )
        for flag in flags.split()
    }
    - {"--debug"}
)
VERBS = [
    "train", "resume", "explain", "explore", "eval", "predict", "generate", "export", "report",
    "doctor", "plans",
]  # fmt: skip
PLACES = [
    "image", "text", "video", "run", "torn", "study", "empty", "file.txt", "table.csv", "missing",
    "own.py:task", "own.py:net", "own.py:Net", "own.py:nothing", "own.py:build", "raises.py:x",
    "ends.py:x", "os:system", "sys:exit", "nowhere:x", ":", "a:b:c", "", "-", "--", "..",
    "/dev/null", "list", "show", "a" * 300, "no\0where", "caf\udce9", "\N{SNOWMAN}", "*", "own.py",
]  # fmt: skip
VALUES = [
    "0", "1", "-1", "3", "0.5", "nan", "inf", "1e309", "1" * 40, "9" * 400, "9" * 5000,
    "1e308", "\N{ARABIC-INDIC DIGIT THREE}", "H100 x 6_",
    "60s", "0s", "10st", "best", "cpu", "cuda:99", "meta", "nonsense", "fp32", "bf16", "true",
    "precision=bf16", "=", "compile=", "8GiB", "-8GiB", "H100", "onnx", "minimize", "\udcff\udcfe",
    "/dev/full", *PLACES,
]  # fmt: skip

calls = st.tuples(
    st.sampled_from(VERBS),
    st.lists(st.sampled_from(PLACES), max_size=3),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(FLAGS)),
            st.tuples(st.sampled_from(FLAGS), st.sampled_from(VALUES)),
        ),
        max_size=4,
    ),
).map(lambda parts: [parts[0], *parts[1], *(word for option in parts[2] for word in option)])

OWN_FILE = """
import torch
class Net:
    def __call__(self): raise ValueError
net = Net()
def build(trial): raise ValueError
def task(): raise ValueError("no task today")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what the calls name; nothing is trained."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    files = {
        "own.py": OWN_FILE, "raises.py": "1 / 0", "ends.py": "import sys; sys.exit(0)",
        "file.txt": "text " * 50, "table.csv": "image,label\na.png,1\n",
        "run/run.json": json.dumps({"status": "finished", "source": {"kind": "image"}}),
        "torn/run.json": "{", "study/study.json": "{",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / "here" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "here" / "empty").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    nothing_is_trained(monkeypatch)
    yield
    for name in ("own", "raises", "ends"):
        sys.modules.pop(name, None)
        sys.modules.pop(f"volano_user_{name}", None)


def nothing_is_trained(monkeypatch):
    def refuse(*_, **__):
        raise RunError("A test must train nothing", got="a training")

    for name in (
        "volano.apps.train._fit", "volano.running.train.choose_plan",
        "volano.api.explain.find_plan", "volano.api.explain.explain_absent",
        "volano.study.run_study.run_study",
        "volano.api.explore.application_build", "volano.api.doctor.doctor",
    ):  # fmt: skip
        monkeypatch.setattr(name, refuse)
    from volano.apps.image.application import ImageApplication
    from volano.apps.text.application import TextApplication
    from volano.apps.text.classify.application import ClassifyApplication
    from volano.apps.video.application import VideoApplication

    for application in (ImageApplication, TextApplication, ClassifyApplication, VideoApplication):
        read = application.read
        monkeypatch.setattr(
            application,
            "read",
            lambda options, scratch, read=read: (
                refuse() if options.path is None else read(options, scratch)
            ),
        )


def check(arguments, capsys):
    environment = dict(os.environ)
    code = run(arguments)
    captured = capsys.readouterr()
    assert code in (0, 1, 2)
    for text in (captured.out, captured.err):
        assert "Traceback" not in text
        assert "not foreseen" not in text
    if code and "--json" in arguments:
        assert json.loads(captured.out.splitlines()[-1])
    assert dict(os.environ) == environment


def given_calls(number):
    """Hypothesis, with so many calls."""

    def decorate(test):
        quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
        settings = hypothesis.settings(
            max_examples=number, deadline=None, database=None, derandomize=True,
            suppress_health_check=quiet,
        )  # fmt: skip
        return settings(hypothesis.given(calls)(test))

    return decorate


@given_calls(100)
def test_nonsense_ends_in_a_sentence(folder, capsys, arguments):
    check(arguments, capsys)


@pytest.mark.slow
@given_calls(1000)
def test_much_nonsense_ends_in_sentences(folder, capsys, arguments):
    check(arguments, capsys)
