"""The command ``volano`` from its first line on: its streams and signals, before the rest is
imported."""

from __future__ import annotations

from collections.abc import Callable

from volano.cli.interrupts import enter


def main() -> None:
    """Runs the ``volano`` command, and ends the process with its exit code."""
    enter(_load)


def _load() -> Callable[..., int]:
    from volano.cli.main import run

    return run
