"""What planning may cost: a little at first, more as gains are found, never more than a stated
share of the run."""

from __future__ import annotations

import time

# The share of the predicted run that is spent before anything is gained: with it alone a run in
# which nothing helps stays within the 1.02 of plain eager that is promised.
_FIRST_SHARE = 0.015
# Of each second that was found to be saved, so much may go into finding more.
_SHARE_OF_GAIN = 0.5
# At most this share of the run, whatever is gained.
MOST_SHARE = 0.05


class TimeBudget:
    """Seconds left for planning.

    Args:
        run_seconds: of the run as plain eager would need it; None is not known yet, and then
            nothing is refused.
        most_seconds: a ceiling, whatever the run.
        is_free: nobody waits for a run: only the ceiling counts.
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

    @property
    def spent(self) -> float:
        """Seconds since the beginning, without those that the run itself saves by it (compilation
        that it reuses)."""
        return time.perf_counter() - self._start - self._not_lost

    @property
    def total(self) -> float:
        """Seconds that may be spent in all, by what is known now."""
        if self._is_free or self.run_seconds is None:
            return self._most
        share = min(MOST_SHARE, _FIRST_SHARE + _SHARE_OF_GAIN * self._gain)
        return min(self._most, share * self.run_seconds)

    @property
    def left(self) -> float:
        """Seconds that may still be spent; below 0 where it was overdrawn."""
        return self.total - self.spent

    def note_gain(self, share: float) -> None:
        """Tells of the share of plain eager's time that the best candidate so far saves, 0 to 1."""
        self._gain = max(self._gain, share)

    def note_reused(self, seconds: float) -> None:
        """Tells of seconds that the run will not spend again."""
        self._not_lost += seconds
