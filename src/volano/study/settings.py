"""The request for a study, as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from volano.errors import UsageError
from volano.plan.format import MOST_MINUTES
from volano.study.successive_halving import check_rungs, shares_of

# The first 10 trials of Optuna's TPE are drawn at random whatever the others gave (its
# n_startup_trials): a first cohort below that learns nothing from being small.
_NUM_STARTUP = 10
# Of three workers one may be late.
_QUORUM = 2 / 3


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """The settings of a study.

    Attributes:
        trials: the number of trials to ask for in all.
        minutes: after which nothing new begins, or None.
        metric: the metric of the evaluation, by which trials are compared.
        direction: ``"minimize"`` or ``"maximize"`` it.
        seed: the seed of the default sampler.
        eta: one trial in so many continues at a rung.
        rungs: the number of rungs, the end of the run included; None takes them from ``trials`` and
            ``eta``.
        quorum: share of those on their way to a rung that has to have arrived before it decides,
            if three workers or more train them. On one or two all are awaited, so that a study
            is reproducible.

    Raises:
        UsageError: at birth, if one is invalid.
    """

    trials: int
    minutes: float | None = None
    metric: str = "loss"
    direction: Literal["minimize", "maximize"] = "minimize"
    seed: int = 0
    eta: int = 3
    rungs: int | None = None
    quorum: float = _QUORUM

    def __post_init__(self) -> None:
        if not (isinstance(self.trials, int) and self.trials > 0):
            raise UsageError("`trials` must be a whole number above 0", got=repr(self.trials))
        if self.minutes is not None and not 0 < self.minutes <= MOST_MINUTES:
            raise UsageError(
                f"`minutes` must be a number above 0, at most {MOST_MINUTES:,}, or None",
                got=repr(self.minutes),
            )
        if self.direction not in ("minimize", "maximize"):
            raise UsageError(
                "`direction` must be 'minimize' or 'maximize'", got=repr(self.direction)
            )
        if not (isinstance(self.metric, str) and self.metric):
            raise UsageError(
                "`metric` must name a figure of the evaluation",
                got=repr(self.metric),
                remedy="Say 'loss'",
            )
        # What NumPy's RandomState takes.
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**32):
            raise UsageError(
                "`seed` must be a whole number from 0 to 2**32 - 1", got=repr(self.seed)
            )
        if not 0 < self.quorum <= 1:
            raise UsageError("`quorum` must be above 0 and at most 1", got=repr(self.quorum))
        check_rungs(self.eta, self.rungs)

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of a trial's whole run at which the rungs stand."""
        return shares_of(self.trials, self.eta, self.rungs)

    @property
    def width(self) -> int:
        """The number of trials that are trained side by side: one in ``eta``, so that the sampler
        learns from earlier ones."""
        return min(self.trials, max(math.ceil(self.trials / self.eta), _NUM_STARTUP))

    def to_json(self) -> dict[str, Any]:
        """Returns the settings for ``study.json``."""
        return {**asdict(self), "shares": list(self.shares), "width": self.width}

    def going_on(self, before: Mapping[str, Any]) -> StudySettings:
        """Returns these settings for a study that was started with others, whose JSON is
        ``before``: its rungs if none are asked for. More trials and another time limit are allowed.

        Raises:
            UsageError: others differ.
        """
        shares = before.get("shares") or []
        settings = replace(self, rungs=len(shares)) if self.rungs is None else self
        mine = settings.to_json()
        differences = [
            f"{name} was {before.get(name)!r} and is {mine[name]!r}"
            for name in ("metric", "direction", "eta", "shares", "seed")
            if before.get(name) != mine[name]
        ]
        if differences:
            raise UsageError(
                "A resumed study must keep its settings",
                got="; ".join(differences),
                remedy="Give those, or start another one with another `out`",
            )
        return settings
