"""The signals that end a command: Ctrl-C, SIGTERM and SIGHUP alike, from its first line on.

Each raises KeyboardInterrupt where it arrives, so that files on their way are removed. A training
replaces the handlers while it runs (``training.signals``). This module imports nothing heavy: what
a command imports takes seconds, and is interrupted too.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from volano.collector import leave_to_the_system
from volano.terminal import finish_streams, prepare_streams, unfailing

INTERRUPTED = "interrupted before the end; a run that has begun is continued by: volano resume RUN"
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class CommandInterrupt(KeyboardInterrupt):
    """An interruption of the command. Python notes where the plain KeyboardInterrupt leaves code
    that is executed from text, as that of dataclasses, and then ends itself by a signal, whatever
    the exit code."""


class Interrupts:
    """A context in which the signals raise KeyboardInterrupt.

    Attributes:
        has_come: whether one came; an import that was interrupted may raise another exception.
    """

    def __init__(self) -> None:
        self.has_come = False

    def __enter__(self) -> Interrupts:
        for number in _numbers():
            # What a parent has had ignored (nohup, a job in the background) stays ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._raise)
        return self

    def __exit__(self, *_: Any) -> None:
        """Leaves the command to its end: Ctrl-C would print a traceback of the interpreter's
        own end."""
        for number in _numbers():
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)

    def _raise(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self.has_come = True
        raise CommandInterrupt


def enter(load: Callable[[], Callable[..., int]]) -> None:
    """Runs a command and ends the process with its exit code; ``load`` imports what runs it."""
    arguments = sys.argv[1:]
    with Interrupts() as interrupts:
        try:
            prepare_streams()
            code = load()(arguments, lambda: interrupts.has_come)
        except KeyboardInterrupt:
            code = say_interrupted(arguments)
        except Exception:
            # What the import of a library has made of an interruption.
            if not interrupts.has_come or "--debug" in arguments:
                raise
            code = say_interrupted(arguments)
    finish_streams()
    leave_to_the_system()
    sys.exit(code)


def say_interrupted(arguments: list[str]) -> int:
    """Says that a command was interrupted. Returns its exit code."""
    # Ctrl-C ends the reader of a pipe too, and then nothing can be printed.
    print(INTERRUPTED, file=unfailing(sys.stderr), flush=True)
    if "--json" in arguments:
        record = f'{{"error": "{INTERRUPTED}", "kind": "KeyboardInterrupt"}}'
        print(record, file=unfailing(sys.stdout), flush=True)
    return 1


def _numbers() -> list[int]:
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
