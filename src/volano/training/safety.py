"""The settings of a run's safety: they change neither what is learned nor how it is computed."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from volano.errors import CheckpointError, UsageError

# Python turns no text of thousands of digits into a number.
_SECONDS = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)s")
_STEPS = re.compile(r"(\d{1,15})st")


@dataclass(frozen=True, kw_only=True)
class Safety:
    """The safety settings of a run, kept in its ``run.json`` and used again by a resume.

    Attributes:
        save_every: time or steps between two checkpoints: ``"60s"``, ``"500st"``. Seconds are a
            least: if saving is dear they are stretched, so that it takes 2 % of the time. Steps
            are kept to.
        skip_bad_steps: the number of steps with a loss or a gradient that is not finite may be left
            out in the whole run; 0 stops the run at the first.
        memory_limit: bytes that the run may take on an accelerator, its budget; None is no limit.
            A step that would take more runs out of memory, and is repeated in smaller parts.

    Raises:
        UsageError: at birth, if a setting is invalid.
    """

    save_every: str = "60s"
    skip_bad_steps: int = 0
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.save_seconds is None and not self.save_steps:
            raise UsageError(
                "`save_every` must be seconds or steps above 0",
                got=repr(self.save_every),
                remedy="Write 60s or 500st",
            )
        count = self.skip_bad_steps
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise UsageError(
                "`skip_bad_steps` must be a whole number of steps, at least 0", got=repr(count)
            )

    @property
    def save_seconds(self) -> float | None:
        """The seconds between checkpoints, or None if steps count."""
        match = _SECONDS.fullmatch(self.save_every) if isinstance(self.save_every, str) else None
        seconds = float(match.group(1)) if match else 0.0
        return seconds if 0 < seconds < math.inf else None

    @property
    def save_steps(self) -> int | None:
        """The optimizer steps between checkpoints, or None if seconds count."""
        match = _STEPS.fullmatch(self.save_every) if isinstance(self.save_every, str) else None
        return int(match.group(1)) if match else None

    def to_json(self) -> dict[str, Any]:
        """Returns the settings for ``run.json``."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: Any) -> Safety:
        """The inverse of :meth:`to_json`; a run of an earlier version, which has none, gets the
        default.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            return cls(**(value or {}))
        except (TypeError, UsageError) as error:
            raise CheckpointError(
                "run.json must hold a run's safety settings", got=f"{value!r}: {error}"
            ) from error
