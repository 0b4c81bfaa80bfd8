"""What enters and leaves a pack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from volano.task import Task


@dataclass(frozen=True, kw_only=True)
class Member:
    """One configuration of a pack.

    Attributes:
        number: by which it is known; the trial's, in a study.
        task: that it trains.
        state: where it stands: ``step``, ``model``, ``optimizer`` and ``ema`` as their ``state_dict``s (``ema`` is None
            without an average), on the host; None starts it from its first step.
    """

    number: int
    task: Task
    state: dict[str, Any] | None = None
