"""What a study tells its observer while it runs: notices, failures, decisions, and where it
stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from volano.study.observe import RungDecision, StudyObserver, Summary
from volano.study.settings import StudySettings
from volano.study.successive_halving import SuccessiveHalving
from volano.study.time_left import TimeEstimate
from volano.study.trial_ledger import TrialLedger

_MOST_FAILURES_TOLD = 5  # with different reasons


class Announcements:
    """Tells an observer what happens in a study.

    Args:
        settings: the settings of the study.
        ledger: its accounts.
        rungs: the rungs, with the values recorded there.
        time_left: the estimate of the time that rounds take.
        observer: the observer that hears of it.
    """

    def __init__(
        self, settings: StudySettings, ledger: TrialLedger, rungs: SuccessiveHalving,
        time_left: TimeEstimate, observer: StudyObserver,
    ) -> None:  # fmt: skip
        self._settings, self._ledger, self._rungs = settings, ledger, rungs
        self._time_left, self._observer = time_left, observer
        self._steps_before = ledger.steps
        self._failures_told: set[str] = set()
        self.training_seconds = 0.0  # in which workers had work

    def notice(self, text: str) -> None:
        """Tells what a person should know, once."""
        if self._ledger.noticed(text):
            self._observer.on_notice(text)

    def failed(self, number: int, reason: str) -> None:
        """Tells why a trial failed; a few different reasons are told."""
        if reason in self._failures_told or len(self._failures_told) > _MOST_FAILURES_TOLD:
            return
        self._failures_told.add(reason)
        is_last = len(self._failures_told) > _MOST_FAILURES_TOLD
        self.notice(
            "more trials failed, see trials.jsonl"
            if is_last
            else f"trial {number} failed: {reason}"
        )

    def decided(self, rung: int, kept: tuple[int, ...], cut: tuple[int, ...]) -> None:
        """Notes and tells the decision of a rung."""
        self._ledger.decided(rung, kept, cut)
        values = {number: self._rungs.values(rung)[number] for number in (*kept, *cut)}
        share = self._rungs.shares[rung]
        self._observer.on_rung(
            RungDecision(rung=rung, share=share, values=values, kept=kept, cut=cut)
        )

    def save(self) -> None:
        """Makes the folder hold all that has happened in a study that runs."""
        self._ledger.save(
            steps=self._ledger.steps,
            steps_per_second=self._steps_per_second,
            status="running",
            reason=None,
        )

    def stand(self, live: Iterable[int], in_hand: Counter[int], num_new: int) -> None:
        """Tells where the study stands.

        Args:
            live: the next rung of each trial that has not ended.
            in_hand: the number of trials that workers train to a rung, by rung.
            num_new: the number of trials that are still to be asked for.
        """
        ledger = self._ledger
        self._observer.on_trials(
            Summary(
                num_trials=self._settings.trials,
                num_asked=len(ledger.trials),
                num_running=ledger.count("running"),
                num_pruned=ledger.count("pruned"),
                num_complete=ledger.count("complete"),
                num_failed=ledger.count("failed"),
                best=ledger.best,
                steps=ledger.steps,
                steps_per_second=self._steps_per_second,
                seconds=ledger.seconds,
                seconds_left=self._seconds_left(Counter(live), num_new),
                training={self._rungs.shares[rung]: count for rung, count in in_hand.items()},
            )
        )

    @property
    def _steps_per_second(self) -> float:
        seconds = self.training_seconds
        return (self._ledger.steps - self._steps_before) / seconds if seconds > 0 else 0.0

    def _seconds_left(self, waiting: Counter[int], num_new: int) -> float | None:
        seconds = self._time_left.seconds_to_end(waiting, num_new, self._settings.width)
        if seconds is None or self._settings.minutes is None:
            return seconds
        return max(0.0, min(seconds, self._settings.minutes * 60 - self._ledger.seconds))
