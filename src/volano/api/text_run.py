"""What both goals of the text application share: language models and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from volano.errors import UsageError
from volano.training import Run


@dataclass(frozen=True, kw_only=True)
class TextRun:
    """A run of the text application. ``metrics`` and ``seconds`` include the final test."""

    run: Run
    metrics: dict[str, Any]
    seconds: dict[str, float]


def check_minutes(minutes: float | None, epochs: float | None) -> None:
    """Raises UsageError unless a run's length is given once, and can be meant."""
    if minutes is not None and epochs is not None:
        raise UsageError("A run is as long as --minutes or --epochs say", got="both")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError("--minutes is a number above 0", got=minutes)
