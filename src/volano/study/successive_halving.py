"""Synchronous successive halving (Jamieson & Talwalkar 2016; Li et al. 2018): what each rung keeps
and cuts.

All members of a cohort reach a rung together, and are ranked together: the result does not depend
on who came first. Pruners that are asked trial by trial do depend on it: of 27 trials asked best
first, eta 3, one survives; worst first, all 27 do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction

from volano.errors import UsageError


def shares_of(num_trials: int, eta: int, num_rungs: int | None = None) -> tuple[float, ...]:
    """Returns the rungs as shares of a trial's whole run, rising to 1: ``eta**-i``.

    Args:
        num_trials: the trials of the study, from which the number of rungs comes if it is not
            given: as many as leave about ``eta`` trials to be trained to their end.
        eta: one trial in so many continues at a rung.
        num_rungs: the last one, at the end of the run, included.
    """
    if num_rungs is None:
        num_rungs = 1
        while eta ** (num_rungs + 1) <= num_trials:
            num_rungs += 1
    return tuple(float(Fraction(1, eta**i)) for i in reversed(range(num_rungs)))


def best_numbers(values: Mapping[int, float], count: int, direction: str) -> frozenset[int]:
    """The ``count`` best of ``values`` by number; NaN and infinity are never among them, ties go to
    the lower number."""
    sign = 1.0 if direction == "minimize" else -1.0
    ranked = sorted(
        (sign * value, number) for number, value in values.items() if math.isfinite(value)
    )
    return frozenset(number for _, number in ranked[:count])


class SuccessiveHalving:
    """The values recorded at each rung, and what follows from them.

    Args:
        shares: see :func:`shares_of`.
        eta: one trial in so many continues at a rung.
        direction: ``"minimize"`` or ``"maximize"``.
    """

    def __init__(self, shares: tuple[float, ...], eta: int, direction: str) -> None:
        self.shares, self._eta, self._direction = shares, eta, direction
        self._values: list[dict[int, float]] = [{} for _ in shares]

    @property
    def last(self) -> int:
        """The index of the rung at the end of the run."""
        return len(self.shares) - 1

    def record(self, rung: int, number: int, value: float) -> None:
        """Takes in the value of a trial; one that is trained again after a loss shows it again."""
        self._values[rung][number] = value

    def values(self, rung: int) -> Mapping[int, float]:
        """Returns all values recorded at a rung, by number."""
        return self._values[rung]

    def decide(self, rung: int, numbers: Iterable[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns which of the trials ``numbers`` (recorded there) continue and which are cut, both
        in order of number.

        The best ``ceil(n / eta)`` of all n values recorded at the rung continue, so that a later
        cohort is compared with the earlier ones. The last rung keeps every number. What is not
        finite is cut.
        """
        values = self._values[rung]
        count = len(values) if rung == self.last else math.ceil(len(values) / self._eta)
        best = best_numbers(values, count, self._direction)
        ordered = sorted(numbers)
        return tuple(n for n in ordered if n in best), tuple(n for n in ordered if n not in best)


class Round:
    """A group of trials on their way to a rung, until it decides.

    Args:
        rung: its index.
        expected: numbers of those on their way.
        quorum: share of them, above 0, that has to have arrived.
    """

    def __init__(self, rung: int, expected: Collection[int], quorum: float) -> None:
        self.rung, self._quorum = rung, quorum
        self._expected, self._arrived = set(expected), set[int]()
        self.num_trials = len(self._expected)
        self.is_decided = False

    def arrive(self, number: int) -> None:
        """A trial has its value."""
        self._arrived.add(number)

    def give_up(self, number: int) -> None:
        """A trial has failed or was lost: no rung waits for it any more."""
        self._expected.discard(number)
        self._arrived.discard(number)

    @property
    def undecided(self) -> tuple[int, ...]:
        """Returns the numbers of trials that have arrived and about which nothing was decided
        yet."""
        return tuple(sorted(self._arrived))

    @property
    def is_due(self) -> bool:
        """Returns whether enough trials have arrived for the rung to decide about them. After its
        first decision it decides about latecomers as they arrive."""
        if self.is_decided:
            return bool(self._arrived)
        # The product may lie above a whole number by rounding alone.
        return bool(self._arrived) and len(self._arrived) >= math.ceil(
            self._quorum * len(self._expected) - 1e-9
        )

    def decided(self, numbers: Iterable[int]) -> None:
        """The rung has decided about these."""
        self.is_decided = True
        self._expected.difference_update(numbers)
        self._arrived.difference_update(numbers)


def check_rungs(eta: int, num_rungs: int | None) -> None:
    """Raises UsageError unless they can be meant."""
    if not (isinstance(eta, int) and eta >= 2):
        raise UsageError(
            "`eta` must be a whole number of at least 2: one trial in so many continues",
            got=repr(eta),
        )
    if num_rungs is not None and not (isinstance(num_rungs, int) and 1 <= num_rungs <= 12):
        # eta 2 and 12 rungs start at 1/2048 of a run.
        raise UsageError(
            "`rungs` must be a whole number from 1 (no pruning) to 12, or None", got=repr(num_rungs)
        )
