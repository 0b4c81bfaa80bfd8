"""How long a script will take, as earlier runs tell it."""

from __future__ import annotations

import os

import pytest

from volano.script.lengths import (
    ScriptLength,
    expected_length,
    length_file,
    note_length,
    written_since,
)
from volano.script.remembered import Script, forget_scripts


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")


def command(words):
    return Script(target="train.py", arguments=tuple(words.split()))


def note(words, seconds, **about):
    script = command(words)
    length = ScriptLength(seconds=seconds, startup_seconds=10, **about)
    note_length(length_file(script), script.arguments, length)


@pytest.mark.parametrize(
    ("before", "now", "seconds"),
    [
        ("--epochs 2 --lr 1", "--epochs 2 --lr 3", 110),
        ("--epochs 2", "--epochs 20", 1010),
        ("--max-steps=100", "--max-steps=10", 20),
        ("--epochs 2 --max-steps 9", "--epochs 20 --max-steps 9", None),
        ("--log-steps 5", "--log-steps 50", 110),
        ("--epochs 2", "--epochs many", None),
        ("--epochs 0", "--epochs 2", None),
        ("", "", 110),
        ("--resume a", "--resume a", None),
        ("--width 2", "--width 4", None),
    ],
)
def test_what_a_run_tells_of_another(before, now, seconds):
    note(before, 110.0)
    found = expected_length(command(now))
    assert (found and found.seconds) == seconds


def test_the_same_arguments_count_first_and_a_run_that_was_stopped_is_the_least():
    note("--epochs 1", 20.0)
    note("--epochs 5", 40.0)
    assert expected_length(command("--epochs 1")).seconds == 20
    note("--epochs 1", 15.0, is_whole=False)
    assert expected_length(command("--epochs 1")).seconds == 20
    note("--epochs 1", 25.0, is_whole=False)
    assert expected_length(command("--epochs 1")).seconds == 25
    note("--epochs 1", 12.0)
    assert expected_length(command("--epochs 1")).seconds == 12


def test_what_is_damaged_or_forgotten_tells_nothing():
    note("", 20.0)
    path = length_file(command(""))
    path.write_text('{"schema_version": 1, "lengths": [3, {"seconds": "x", "arguments": {}}]}')
    assert expected_length(command("")) is None
    note("", 20.0)
    forget_scripts()
    assert expected_length(command("")) is None
    assert length_file(Script(target="away", is_module=True)) is None


def test_a_file_that_was_written_is_found(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "train.pyc").write_text("")
    (tmp_path / "old").write_text("")
    os.utime(tmp_path / "old", (1.0, 1.0))
    os.utime(tmp_path / "train.py", (1.0, 1.0))
    assert written_since(tmp_path, 2.0) is None
    (tmp_path / "out" / "model.pt").write_text("")
    assert written_since(tmp_path, 2.0) == "out/model.pt"
    note("--epochs 2", 20.0, written="out/model.pt")
    assert expected_length(command("--epochs 2")).written == "out/model.pt"
