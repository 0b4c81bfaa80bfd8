"""The signals Ctrl-C, SIGTERM and SIGHUP ask a run to stop after the step in flight, and a study
when it waits."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self


def signals_to_stop() -> list[signal.Signals]:
    """Returns the signals that ask for an end."""
    names = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        names.append(signal.SIGHUP)
    return names


class StopRequest:
    """A context in which SIGINT, SIGTERM and SIGHUP only set ``requested``; a second Ctrl-C
    interrupts at once. SIGHUP stays ignored where it was (nohup).

    Outside the main thread Python allows no handlers; there the context does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._old: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in signals_to_stop():
                self._old[name] = signal.signal(name, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, handler in self._old.items():
            # None: installed by a host program in C, which Python cannot put back.
            if handler is not None:
                signal.signal(name, handler)  # pyright: ignore[reportArgumentType] - what signal.signal returned

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


class SignalBell:
    """A context in which another thread learns of the signals that ask for an end as they come. A
    handler of Python waits until the main thread is back from a library, and that may wait for a
    rank for ever.

    Outside the main thread the context does nothing.
    """

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None
        self._old = -1
        self._has_rung = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._ends = os.pipe()
            for end in self._ends:
                os.set_blocking(end, False)
            # The interpreter writes each signal's number at once.
            self._old = signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ends is not None:
            signal.set_wakeup_fd(self._old)
            for end in self._ends:
                os.close(end)
            self._ends = None

    def has_rung(self) -> bool:
        """Returns whether one has come."""
        if self._ends is not None and not self._has_rung:
            with contextlib.suppress(OSError):  # nothing is there to read
                self._has_rung = not {*signals_to_stop()}.isdisjoint(os.read(self._ends[0], 4096))
        return self._has_rung


class Interruption(StopRequest):
    """A context in which the first Ctrl-C, SIGTERM or SIGHUP interrupts what :meth:`waiting`
    waits for, and nothing else: what is written is written to its end. A second Ctrl-C interrupts
    anything."""

    def __init__(self) -> None:
        super().__init__()
        self._is_waiting = False

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context that raises KeyboardInterrupt when the study is asked to stop."""
        self._is_waiting = True
        try:
            self.check()
            yield
        finally:
            self._is_waiting = False

    def check(self) -> None:
        """Raises KeyboardInterrupt when the study was asked to stop."""
        if self.requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        super()._handle(number, frame)
        if self._is_waiting:
            self._is_waiting = False
            raise KeyboardInterrupt
