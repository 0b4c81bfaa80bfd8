"""``volano run``: where its options end and the script's begin."""

from __future__ import annotations

import sys

import pytest

from volano.cli.main import run
from volano.cli.run import RunWords, parse_words, run_early
from volano.script.remembered import Script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a.py", RunWords(Script(target="a.py"))),
        ("a.py --plan x -m", RunWords(Script(target="a.py", arguments=("--plan", "x", "-m")))),
        ("--plan p a.py", RunWords(Script(target="a.py"), "p")),
        (
            "--plan=p -m a.b c",
            RunWords(Script(target="a.b", is_module=True, arguments=("c",)), "p"),
        ),
        ("--no-plan a.py", RunWords(Script(target="a.py"), is_plain=True)),
        ("--find 60 a.py", RunWords(Script(target="a.py"), seconds=60)),
    ],
)
def test_options_stand_before_the_script(words, expected):
    assert parse_words(words.split()) == expected


@pytest.mark.parametrize("words", ["", "--help", "-h", "--plan", "--find x a.py", "-m"])
def test_what_is_not_understood_goes_the_usual_way(words):
    assert parse_words(words.split()) is None
    assert run_early(["run", *words.split()]) is False


def test_other_commands_are_not_run_early():
    assert run_early(["train", "image"]) is False
    assert run_early([]) is False


def test_options_behind_the_script_that_it_does_not_know_are_said(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("volano.cli.run.run_script", lambda *_, **__: None)
    for name, text in (("a.py", "1"), ("b.py", "parser.add_argument('--plan')"),
                       ("c.py", "def main(plan: str): ...")):  # fmt: skip
        (tmp_path / name).write_text(text)
        assert run_early(["run", "--no-plan", name, "--plan=x"])
    assert capsys.readouterr().err == (
        "volano: --plan stands behind a.py, whose own it is: Volano's options stand before it\n"
    )


def test_mistakes_are_usage_errors(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        run_early(["run", "nothing.py"])
    assert ended.value.code == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "a.py").write_text("")
    with pytest.raises(SystemExit) as ended:
        run_early(["run", "--plan", "none.json", "a.py"])
    assert ended.value.code == 2
    for words, said in (
        ("--find 0 a.py", "must be a number of seconds above 0"),
        ("--plan x --no-plan a.py", "One of `plan`, `no_plan` and `find`"),
        ("-m nothing.here", "A module to run must exist; got 'nothing.here'"),
        ("-m .here", "A module to run must exist; got '.here'"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_early(["run", *words.split()])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "__init__.py").write_text("import nothing_of_this_name")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        run_early(["run", "-m", "lacking.inside"])
    assert run(["run"]) == 2
    assert run(["run", "--help"]) == 0
    assert "as python would" in capsys.readouterr().out
