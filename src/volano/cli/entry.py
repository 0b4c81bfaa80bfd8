"""The command ``volano`` from its first line on: its streams and signals, before the rest is
imported."""

from __future__ import annotations

import sys
from collections.abc import Callable

from volano.cli.interrupts import enter
from volano.thread_waits import shorten_waits


def main() -> None:
    """Runs the ``volano`` command, and ends the process with its exit code."""
    if sys.argv[1:2] == ["run"]:
        # Before any signal is handled otherwise: they are the script's.
        from volano.cli.run import run_early

        if run_early(sys.argv[1:]):
            return
    shorten_waits()  # before anything loads torch
    enter(_load)


def _load() -> Callable[..., int]:
    from volano.cli.main import run

    return run
