"""Source edited at the places of its tree."""

from __future__ import annotations

import ast
import subprocess

import pytest

from volano.script.source_edits import SourceFile


def edited(tmp_path, text, values):
    path = tmp_path / "code.py"
    path.write_bytes(text.encode())
    source = SourceFile(path, "code.py")
    (call,) = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)][:1]
    return source.set_keywords(call, values), source


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f()", "f(n=2)"),
        ("f(a)", "f(a, n=2)"),
        ("f(a, n=0)  # why", "f(a, n=2)  # why"),
        ("f(a, n=None, b=1)", "f(a, n=2, b=1)"),
        ("f(a,)", "f(a, n=2,)"),
        ("f(\n    a,  # one\n    b=1,  # two\n)", "f(\n    a,  # one\n    b=1, n=2,  # two\n)"),
        ("f((a))", "f((a), n=2)"),
        ("é = 'ü'; f(é)", "é = 'ü'; f(é, n=2)"),
        ("f(*a, **b, n=1)", "f(*a, **b, n=2)"),
        ("x = 1\f\nf(a)\n", "x = 1\f\nf(a, n=2)\n"),
        ("f(a)\r\ng()\r", "f(a, n=2)\r\ng()\r"),
        ("f(')')", "f(')', n=2)"),
        ("f(\n    # nothing yet\n)", "f(n=2\n    # nothing yet\n)"),
    ],
)  # fmt: skip
def test_a_keyword_is_added_or_changed_and_nothing_else(tmp_path, before, after):
    is_done, source = edited(tmp_path, before + "\n", {"n": "2"})
    assert is_done
    assert source.edited() == after + "\n"


@pytest.mark.parametrize("text", ["f(n=args.n)", "f(x for x in y)", "f(**given)"])
def test_what_is_no_literal_or_would_not_parse_is_left(tmp_path, text):
    is_done, source = edited(tmp_path, text + "\n", {"n": "2"})
    assert not is_done
    assert source.edited() == text + "\n"
    assert source.diff() == ""


def test_the_diff_is_one_that_tools_take(tmp_path):
    _, source = edited(tmp_path, "import os\nf(\n    a,\n)", {"n": "2", "m": "'x'"})
    (tmp_path / "change.diff").write_text(source.diff())
    subprocess.run(["git", "apply", "change.diff"], cwd=tmp_path, check=True)
    assert (tmp_path / "code.py").read_text() == source.edited()
