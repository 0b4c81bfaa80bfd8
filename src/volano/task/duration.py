"""The duration of a training: ``"10ep"`` epochs, ``"5000st"`` optimizer steps or ``"10min"``
minutes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Literal

from volano.errors import TaskError

_MOST = 1e15
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ep|st|min)\s*")


@dataclass(frozen=True, slots=True)
class Duration:
    """An amount of training with its unit: ``ep`` (epochs, fractions allowed), ``st`` (optimizer
    steps) or ``min`` (minutes of the whole call, resolved into steps before the first one)."""

    amount: float
    unit: Literal["ep", "st", "min"]

    def __post_init__(self) -> None:
        if self.unit not in ("ep", "st", "min"):
            raise TaskError(
                "The unit of a duration must be 'ep' (epochs), 'st' (steps) or 'min' (minutes)",
                got=repr(self.unit),
            )
        is_number = isinstance(self.amount, Real) and not isinstance(self.amount, bool)
        if not (is_number and 0 < self.amount <= _MOST):
            got = f"{self.amount!r} {self.unit}"
            raise TaskError(f"A duration must be above 0, and at most {_MOST:g}", got=got)
        if self.unit == "st" and self.amount != int(self.amount):
            raise TaskError(
                "A number of steps must be whole",
                got=f"{self.amount}st",
                remedy="Only epochs may be fractions",
            )

    @classmethod
    def parse(cls, text: str | Duration) -> Duration:
        """Parses ``"10ep"``, ``"0.5ep"``, ``"5000st"``, ``"10min"``.

        Raises:
            TaskError: the text has another form.
        """
        if isinstance(text, Duration):
            return text
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise TaskError(
                "A duration must be a number with its unit",
                got=repr(text),
                remedy="Write '10ep' for ten epochs, '5000st' for five thousand optimizer steps or "
                "'10min' for ten minutes",
            )
        return cls(float(match[1]), match[2])  # pyright: ignore[reportArgumentType] - the pattern admits only these

    def steps(self, steps_per_epoch: int) -> int:
        """Returns the number of optimizer steps, at least one; a fraction of a step counts as a
        step.

        Raises:
            TaskError: it is a time, which ``volano.train`` resolves by timing steps.
        """
        if self.unit == "min":
            raise TaskError(
                "Minutes must be resolved into steps, which volano.train does before the first one",
                got=str(self),
                remedy="Give epochs ('10ep') or steps ('5000st') here",
            )
        if self.unit == "st":
            return int(self.amount)
        # Round first: 0.1 epochs of 30 steps is 3.0000000000000004 in binary.
        return max(1, math.ceil(round(self.amount * steps_per_epoch, 6)))

    def __str__(self) -> str:
        # without an exponent, which parse refuses
        return f"{Decimal(repr(float(self.amount))).normalize():f}{self.unit}"
