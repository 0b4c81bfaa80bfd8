"""The command ``volano`` from its first line on: its streams and signals, before the rest is
imported."""

from __future__ import annotations

import sys

from volano.cli.interrupts import Interrupts, say_interrupted
from volano.terminal import finish_streams, prepare_streams


def main() -> None:
    """Runs the ``volano`` command, and ends the process with its exit code."""
    arguments = sys.argv[1:]
    with Interrupts() as interrupts:
        try:
            prepare_streams()
            from volano.cli.main import run

            code = run(arguments, lambda: interrupts.has_come)
        except KeyboardInterrupt:
            code = say_interrupted(arguments)
        except Exception:
            # What the import of a library has made of an interruption.
            if not interrupts.has_come or "--debug" in arguments:
                raise
            code = say_interrupted(arguments)
    finish_streams()
    sys.exit(code)
