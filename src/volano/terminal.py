"""The standard streams of a process: whatever becomes of them, printing ends nothing.

A disk runs full, the reader of a pipe goes, a terminal speaks ASCII, a service has no standard
error at all: hours of training are worth more than a line about them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO


class UnfailingStream:
    """A text stream that loses what it cannot write, and never raises.

    Characters that the stream's encoding lacks are written as escapes. Everything else is asked of
    the stream itself, as far as there is one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: Any = stream

    def write(self, text: str) -> int:
        """Writes what can be written. Returns the length of the text."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # ValueError: it was closed
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                content = text.encode(encoding, errors="backslashreplace")
                self._stream.write(content.decode(encoding, errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal."""
        try:
            return bool(self._stream.isatty())
        except (OSError, ValueError, AttributeError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unfailing(stream: TextIO | None) -> Any:
    """Returns a stream for texts that must not end what they tell of; None is no stream at all."""
    return stream if isinstance(stream, UnfailingStream) else UnfailingStream(stream)


def prepare_streams() -> None:
    """Prepares the standard streams of a command.

    A descriptor that was closed before the start becomes the null device: the next file that is
    opened would take its number, and whatever a library prints would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - to the end
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - to the end
    elif getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue] - a TextIOWrapper
    sys.stderr = unfailing(sys.stderr)


def finish_streams() -> None:
    """Writes what is still buffered; what cannot be written is dropped, since the interpreter would
    try again at its end and change the exit code."""
    for stream in (sys.stdout, sys.__stderr__):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
