"""The hearer of what becomes of a plan while it is applied."""

from __future__ import annotations

from typing import Protocol


class Notes(Protocol):
    """The hearer of what was done, and of what was left and why."""

    def did(self, words: str) -> None:
        """Hears what was done."""

    def left(self, words: str) -> None:
        """Hears what was left as the script does it, and why."""
