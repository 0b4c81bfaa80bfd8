"""A script in the child process, against the same script under Python."""

from __future__ import annotations

import subprocess
import sys

import pytest

from volano.errors import ScriptError
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script
from volano.script.watch.launch import ScriptRunner

DRAW = """\
import random
with open("drawn", "a") as file:
    print(random.random(), hash("a"), file=file)
"""
FAIL = """\
def outer():
    try:
        {}["a"]
    except KeyError as error:
        raise ValueError("mine") from error
outer()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    monkeypatch.setenv("OF_THE_PERSON", "kept")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "beside.py").write_text("")
    return tmp_path


def watch(folder, text, *arguments, name="code/script.py"):
    (folder / name).write_text(text)
    with ScriptRunner(Script(target=name, arguments=arguments)) as runner:
        return runner.run(ScriptPlan(), limits={}, seconds=60)


def python(folder, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_draws_are_seeded_where_the_script_does_not(folder):
    for _ in range(2):
        with pytest.raises(ScriptError, match="no import of it"):
            watch(folder, DRAW)
    first, second = (folder / "drawn").read_text().splitlines()
    assert first == second


def test_a_script_that_fails_shows_its_own_traceback_and_no_line_of_volanos(folder, capfd):
    with pytest.raises(ScriptError, match="must run by itself; got exit code 1") as raised:
        watch(folder, FAIL)
    shown = capfd.readouterr().err
    assert shown == python(folder, "code/script.py").stderr
    assert "ValueError: mine" in shown
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_exit_codes_are_the_scripts(folder, end, code):
    with pytest.raises(ScriptError) as raised:
        watch(folder, f"import os, sys\n{end}\n")
    assert raised.value.exit_code == code


def test_files_of_the_current_folder_are_the_scripts_alone(folder):
    for name in ("volano.py", "random.py"):
        (folder / name).write_text("raise SystemExit(9)\n")
    text = "import random, sys\nassert random.random() and sys.path[0].endswith('code')\n"
    with pytest.raises(ScriptError, match="no import of it"):
        watch(folder, text)


def test_nothing_is_left_in_the_temporary_folder(folder, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(ScriptError):
        watch(folder, "1\n")
    assert list(folder.glob("volano*")) == []


def test_a_process_that_the_script_forks_tells_nothing(folder):
    text = "import os, sys\nif os.fork() == 0:\n    sys.exit()\nos.wait()\nsys.exit(3)\n"
    with pytest.raises(ScriptError) as raised:
        watch(folder, text)
    assert raised.value.exit_code == 3
