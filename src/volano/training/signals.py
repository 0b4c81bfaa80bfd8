"""Ctrl-C and SIGTERM ask a run to stop after the step in flight."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class StopRequest:
    """A context in which SIGINT and SIGTERM only set ``requested``; a second Ctrl-C interrupts at once.

    Outside the main thread Python allows no handlers; there the context does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._old: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGINT, signal.SIGTERM):
                self._old[name] = signal.signal(name, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name, handler in self._old.items():
            if handler is not None:  # None: installed by a host program in C, which Python cannot put back
                signal.signal(name, handler)  # pyright: ignore[reportArgumentType] - what signal.signal returned

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
