"""How long threads wait, said to processes before they load OpenMP."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from volano import thread_waits
from volano.device import Device, describe_machine
from volano.thread_waits import SPIN_COUNT, environment_as_given, leaves_waits_open, shorten_waits


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in (SPIN_COUNT, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what a test leaves is taken away
        monkeypatch.delenv(name)
    monkeypatch.setattr(thread_waits, "_set_here", set())


@pytest.mark.parametrize("said", [{SPIN_COUNT: "5"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_what_the_environment_says_stands(said):
    environment = dict(said)
    assert not leaves_waits_open(environment)
    shorten_waits(environment)
    assert environment == said


def test_what_was_set_here_is_no_part_of_what_was_given():
    given = dict(os.environ)
    shorten_waits()
    assert os.environ[SPIN_COUNT] == "10000"
    assert environment_as_given() == given
    assert leaves_waits_open(environment_as_given())


def test_a_run_records_how_long_threads_wait(monkeypatch):
    assert describe_machine(Device("cpu")).spin_count is None
    monkeypatch.setenv(SPIN_COUNT, "7")
    assert describe_machine(Device("cpu")).spin_count == "7"


def test_the_environment_of_a_child_is_its_own():
    environment = {"A": "1"}
    shorten_waits(environment, 7)
    assert environment == {"A": "1", SPIN_COUNT: "7"}
    assert SPIN_COUNT not in os.environ


SHOWN = """
import os, sys
from volano.cli import entry
entry.enter = lambda load: print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
sys.argv[1:] = ["doctor"]
entry.main()
"""


def test_a_command_says_it_before_torch_is_loaded():
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10000", "False"]
