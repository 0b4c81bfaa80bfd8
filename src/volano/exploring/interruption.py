"""Ctrl-C stops a study at once where it waits, and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import FrameType

from volano.training.signals import StopRequest


class Interruption(StopRequest):
    """A context in which the first Ctrl-C or SIGTERM interrupts what :meth:`waiting` waits for, and nothing else: what
    is written is written to its end. A second Ctrl-C interrupts anything."""

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
