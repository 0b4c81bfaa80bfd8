"""Scripts in which there is nothing to explain: what is said of each."""

from __future__ import annotations

import pytest

from volano.errors import RunError, ScriptError, UsageError
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script
from volano.script.watch.launch import ScriptRunner, check_single_process


def run(folder, text, *, seconds=60, **command):
    (folder / "train.py").write_text(text)
    with ScriptRunner(Script(target="train.py"), **command) as runner:
        return runner.run(ScriptPlan(), limits={}, seconds=seconds)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "said"), [("a.ipynb", "nbconvert"), ("b.py", "no such file")])
def test_a_notebook_and_a_script_that_is_not_there(name, said):
    with pytest.raises(UsageError, match=said):
        ScriptRunner(Script(target=name))


@pytest.mark.parametrize("name", ["/tmp", "../other", ""])
def test_scratch_is_in_the_current_folder(here, name):
    (here / "train.py").write_text("")
    with pytest.raises(UsageError, match="`scratch` must name"):
        ScriptRunner(Script(target="train.py"), scratch=(name,))


def test_a_script_that_asks(here, capfd):
    with pytest.raises(ScriptError, match="must ask for nothing.*as arguments"):
        run(here, "input('Which? ')\n")
    assert "EOFError" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])\n",
        "import multiprocessing as mp\nif __name__ == '__main__':\n"
        "    mp.get_context('spawn').Process(target=print).start()\n",
    ],
)
def test_a_script_without_torch_that_starts_others(here, text):
    with pytest.raises(ScriptError, match=r"no import of it. It has started processes of its own"):
        run(here, text)


def test_a_script_that_never_steps(here):
    with pytest.raises(ScriptError, match="must step an optimizer of torch's; got its end"):
        run(here, "import torch\ntorch.ones(3).sum().item()\n")


def test_a_script_that_is_over_before_it_can_be_measured(here):
    (here / "train.py").write_text("")
    record = {"has_torch": True, "starts_processes": False, "num_steps": 0, "num_warmup_steps": 1}
    with (
        ScriptRunner(Script(target="train.py")) as runner,
        pytest.raises(ScriptError, match="its end after 1. Give it arguments with which it"),
    ):
        runner._check_steps(record)
    by_hand = {**record, "num_warmup_steps": 0, "num_backward": 300}
    with pytest.raises(ScriptError, match="of torch's; got 300 backward passes without one"):
        runner._check_steps(by_hand)


def test_a_script_that_needs_the_network(here, capfd):
    text = "import urllib.request\nurllib.request.urlopen('http://nowhere.invalid/data')\n"
    with pytest.raises(ScriptError, match="It looked for nowhere.invalid in the network"):
        run(here, text)
    assert "URLError" in capfd.readouterr().err


def test_a_script_of_which_nothing_is_to_be_seen(here, capfd):
    with pytest.raises(ScriptError, match="exit code 1: ValueError: mine"):
        run(here, "raise ValueError('mine')\n", is_quiet=True)
    assert capfd.readouterr().err == ""


def test_a_script_that_takes_too_long_says_where_it_was(here):
    with pytest.raises(ScriptError, match=r"none in 4 s; it was at train.py:3\. Give it longer"):
        run(here, "import time\n\ntime.sleep(600)\n", seconds=4)


def test_scratch_keeps_what_a_script_writes_from_the_persons_folder(here):
    (here / "data").mkdir()
    (here / "data" / "x").write_text("read")
    (here / "runs" / "old").mkdir(parents=True)
    (here / "runs" / "old" / "log").write_text("old")
    script = (
        "from pathlib import Path\n"
        "assert Path('data/x').read_text() == 'read'\n"
        "assert Path('runs/old/log').read_text() == 'old'\n"
        "Path('runs/old/log').write_text('new')\nPath('model.pt').write_text('')\n"
    )
    with pytest.raises(ScriptError, match="no import of it"):
        run(here, script, scratch=("runs",))
    assert (here / "runs" / "old" / "log").read_text() == "old"
    assert not (here / "model.pt").exists()


def test_ranks_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    check_single_process()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="in one process; got WORLD_SIZE=2"):
        check_single_process()


@pytest.mark.parametrize("end", ["", "int(lines[0])"])
def test_a_script_that_reads_its_standard_input(here, end):
    with pytest.raises(ScriptError, match="must ask for nothing.*read of its standard input"):
        run(here, f"import sys\nlines = sys.stdin.read().split()\n{end}\n", is_quiet=True)
