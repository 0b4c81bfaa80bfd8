"""The time budget of planning: a little at first, more as gains are found, never more than a stated
share of the run."""

from __future__ import annotations

import time

# The share of the predicted run that is spent before anything is gained: a run in which nothing
# helps then stays within the promised 1.02 of plain eager.
_FIRST_SHARE = 0.015
# The share of each second of found saving that may be spent on finding more.
_SHARE_OF_GAIN = 0.5
# The largest share of the run, whatever is gained.
MOST_SHARE = 0.05


class TimeBudget:
    """The seconds left for planning.

    Args:
        run_seconds: seconds of the run under plain eager; None if that is not known yet, and then
            nothing is refused.
        most_seconds: the ceiling, whatever the run.
        is_free: whether no run waits, so that only the ceiling counts.
    """

    def __init__(
        self,
        *,
        run_seconds: float | None = None,
        most_seconds: float = 120.0,
        is_free: bool = False,
    ) -> None:
        self._start = time.perf_counter()
        self.run_seconds = run_seconds
        self._most = most_seconds
        self._is_free = is_free
        self._not_lost = 0.0
        self._gain = 0.0

    def restart(self, most_seconds: float) -> None:
        """Counts from now on, with another ceiling."""
        self._start, self._not_lost = time.perf_counter(), 0.0
        self._most = most_seconds

    @property
    def spent(self) -> float:
        """Returns the seconds since the beginning, without those that the run itself saves by it
        (compilation that it reuses)."""
        return time.perf_counter() - self._start - self._not_lost

    @property
    def total(self) -> float:
        """Returns the seconds that may be spent in all, by what is known now."""
        if self._is_free or self.run_seconds is None:
            return self._most
        share = min(MOST_SHARE, _FIRST_SHARE + _SHARE_OF_GAIN * self._gain)
        return min(self._most, share * self.run_seconds)

    @property
    def left(self) -> float:
        """Returns the seconds that may still be spent; below 0 if more were spent."""
        return self.total - self.spent

    @property
    def left_in_all(self) -> float:
        """Returns the seconds that may still be spent if those that the run saves count too."""
        return self.left - self._not_lost

    def note_gain(self, share: float) -> None:
        """Notes the share of plain eager's time that the best candidate so far saves, 0 to 1."""
        self._gain = max(self._gain, share)

    def note_reused(self, seconds: float) -> None:
        """Notes seconds that the run will not spend again."""
        self._not_lost += seconds
