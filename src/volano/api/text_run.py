"""What both goals of the text application share: language models and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from volano.training import Run


@dataclass(frozen=True, kw_only=True)
class TextRun:
    """A run of the text application. ``metrics`` and ``seconds`` include the final test."""

    run: Run
    metrics: dict[str, Any]
    seconds: dict[str, float]
