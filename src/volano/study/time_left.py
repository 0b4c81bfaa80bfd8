"""Estimates how much of a study is left, and how long it will take, from the rounds that it has
made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


class TimeEstimate:
    """The seconds that a round takes, by the number of trials in it.

    Args:
        shares: the shares of a run at which the rungs stand.
        eta: one trial in so many continues at a rung.
    """

    def __init__(self, shares: Sequence[float], eta: int) -> None:
        self._shares, self._eta = tuple(shares), eta
        self._seconds: dict[int, float] = {}  # of a whole run, by the number of trials side by side

    def distance(self, rung: int) -> float:
        """Returns the share of a run between a rung and the one before."""
        return self._shares[rung] - (self._shares[rung - 1] if rung else 0.0)

    def runs_to_end(self, waiting: Mapping[int, int], num_new: int) -> float:
        """Returns how many whole runs of a trial are to be trained until all that wait for a rung
        (numbers of trials by rung), and so many new ones, have ended."""
        runs, coming = 0.0, 0.0
        for rung in range(len(self._shares)):
            coming += waiting.get(rung, 0) + (num_new if rung == 0 else 0)
            runs += coming * self.distance(rung)
            coming /= self._eta
        return runs

    def note(self, num_trials: int, rung: int, seconds: float) -> None:
        """A round of ``num_trials`` to ``rung`` took so long."""
        self._seconds[num_trials] = seconds / self.distance(rung)

    def seconds(self, num_trials: int, rung: int) -> float | None:
        """Returns the seconds that a round is expected to take; None while nothing is known.

        Of a narrower pack than any so far: the mean of what one bound by launches takes (as long as
        the wider one) and one bound by arithmetic (in proportion). A wider one takes no longer than
        its parts one after another.
        """
        if not self._seconds:
            return None
        wider = [count for count in self._seconds if count >= num_trials]
        known = min(wider) if wider else max(self._seconds)
        proportion = num_trials / known
        factor = (1.0 + proportion) / 2 if wider else proportion
        return self._seconds[known] * factor * self.distance(rung)

    def seconds_to_end(self, waiting: Mapping[int, int], num_new: int, width: int) -> float | None:
        """Returns the seconds until all that wait for a rung (numbers of trials by rung), and so
        many new ones, ``width`` at a time, have ended; None while nothing is known."""
        if not self._seconds:
            return None
        total, coming = 0.0, 0
        for rung in range(len(self._shares)):
            coming += waiting.get(rung, 0) + (num_new if rung == 0 else 0)
            left = coming
            while left > 0:
                together = left if rung else min(left, width)
                total += self.seconds(together, rung) or 0.0
                left -= together
            coming = math.ceil(coming / self._eta)
        return total
