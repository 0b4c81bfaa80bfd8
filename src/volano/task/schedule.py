"""The schedules: progress through the run (0 to 1) -> multiplier of every learning rate.

Step ``s`` of ``S`` stands at progress ``(s + 1/2) / S``, so that neither the first step of a
warm-up nor the last of a decay to zero is lost. A schedule does not depend on how many steps the
run has. Any callable ``float -> float`` is a schedule; these are values that describe themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from volano.errors import TaskError

Schedule = Callable[[float], float]


def progress_at(step: int, num_steps: int) -> float:
    """Returns the progress of step ``step`` (from 0) of ``num_steps``."""
    return (step + 0.5) / num_steps


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """A linear warm-up over a share of the run, then a decay to ``final``."""

    warmup: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup < 1.0:
            raise TaskError(
                "`warmup` must be a share of the run, at least 0 and below 1",
                got=self.warmup,
                remedy="Write 5 % as warmup=0.05",
            )
        if self.final < 0.0:
            raise TaskError("`final` must be a multiplier, at least 0", got=self.final)

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        return self._decay((progress - self.warmup) / (1.0 - self.warmup))

    def _decay(self, share: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Constant(_Shape):
    """A constant rate of 1 after the warm-up."""

    def _decay(self, share: float) -> float:  # noqa: ARG002 - the contract of _Shape
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(_Shape):
    """A decay from 1 in a straight line to ``final``."""

    def _decay(self, share: float) -> float:
        return 1.0 + (self.final - 1.0) * share


@dataclass(frozen=True, kw_only=True)
class Cosine(_Shape):
    """A decay from 1 along half a cosine to ``final`` (Loshchilov & Hutter 2017, one period)."""

    def _decay(self, share: float) -> float:
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True, kw_only=True)
class Trapezoid(_Shape):
    """A plateau at 1, then a straight line to ``final`` over the last ``decay`` share of the
    run."""

    decay: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.decay <= 1.0 - self.warmup:
            raise TaskError(
                "`decay` must be a share of the run above 0 that fits into the run with `warmup`",
                got=f"warmup={self.warmup}, decay={self.decay}",
            )

    def _decay(self, share: float) -> float:
        start = 1.0 - self.decay / (1.0 - self.warmup)
        if share <= start:
            return 1.0
        return 1.0 + (self.final - 1.0) * (share - start) / (1.0 - start)


def constant(*, warmup: float = 0.0) -> Schedule:
    """Returns a constant learning rate after a linear warm-up over the share ``warmup`` of the
    run."""
    return Constant(warmup=warmup)


def linear(*, warmup: float = 0.0, final: float = 0.0) -> Schedule:
    """Returns a linear decay to ``final`` times the learning rate after a linear warm-up."""
    return Linear(warmup=warmup, final=final)


def cosine(*, warmup: float = 0.0, final: float = 0.0) -> Schedule:
    """Returns a cosine decay to ``final`` times the learning rate after a linear warm-up."""
    return Cosine(warmup=warmup, final=final)


def trapezoid(*, warmup: float = 0.0, decay: float = 0.6, final: float = 0.0) -> Schedule:
    """Returns a warm-up, a plateau, and a linear decay over the last ``decay`` share of the run."""
    return Trapezoid(warmup=warmup, decay=decay, final=final)
