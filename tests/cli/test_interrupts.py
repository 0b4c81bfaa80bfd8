"""A command is interrupted from its first line on; test_entry.py interrupts whole ones."""

import io
import json
import os
import signal

import pytest

from volano.cli.interrupts import Interrupts, say_interrupted
from volano.cli.main import run

NAMES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers_kept():
    before = {name: signal.getsignal(name) for name in NAMES}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.mark.parametrize("name", NAMES)
def test_each_signal_interrupts(name):
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), name)
    assert interrupts.has_come


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGHUP)
    assert not interrupts.has_come


def test_after_the_command_ctrl_c_prints_no_traceback():
    with Interrupts():
        pass
    os.kill(os.getpid(), signal.SIGINT)


def test_it_is_a_sentence_and_an_object(capsys):
    assert say_interrupted(["train", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("interrupted before the end; ")
    assert json.loads(captured.out) == {
        "error": captured.err.strip(), "kind": "KeyboardInterrupt"
    }  # fmt: skip


class Gone(io.StringIO):
    """A pipe whose reader has gone, as Ctrl-C ends it too."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


def test_it_is_no_traceback_if_nobody_reads(monkeypatch):
    monkeypatch.setattr("sys.stdout", Gone())
    monkeypatch.setattr("sys.stderr", Gone())
    assert say_interrupted(["train", "--json"]) == 1
    assert run(["nonsense", "--json"]) == 2
    assert run(["eval", "nowhere", "--json"]) == 2
