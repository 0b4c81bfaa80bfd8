"""The events of a study, for observers.

on_start(info)
repeat:  on_trials(summary)  on_rung(rung)  on_notice(text)
on_end(study)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from volano.record.study import BestTrial
from volano.study.settings import StudySettings
from volano.study.study import Study
from volano.study.successive_halving import SuccessiveHalving
from volano.study.time_left import TimeEstimate

if TYPE_CHECKING:
    from volano.study.trial_ledger import TrialLedger

_MOST_FAILURES_TOLD = 5  # with different reasons


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyInfo:
    """The facts known before the first trial.

    Attributes:
        name: the name of the study in its storage.
        folder: the folder of the study.
        num_trials: the number of trials that will be asked for in all.
        num_before: the number of those that an earlier run of this study has asked for already.
        minutes: the limit, or None.
        metric: the metric of the evaluation, by which trials are compared.
        direction: ``"minimize"`` or ``"maximize"``.
        shares: the shares of a trial's whole run at which the rungs stand, rising to 1.
        num_workers: the number of workers that train.
        sampler: name of its class.
    """

    name: str
    folder: str
    num_trials: int
    num_before: int
    minutes: float | None
    metric: str
    direction: str
    shares: tuple[float, ...]
    num_workers: int
    sampler: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The state of a study at one moment.

    Attributes:
        num_trials: the number of trials that will be asked for in all.
        num_asked: so far, ended ones included.
        num_running: neither ended nor cut.
        num_pruned: cut by a rung, or for a loss that is no number.
        num_complete: trained to their end.
        num_failed: whose building or training raised.
        best: None before the first evaluation.
        steps: member-steps made so far: optimizer steps, summed over trials.
        steps_per_second: the same a second, over the seconds in which packs trained.
        seconds: since this run of the study began.
        seconds_left: until its end, estimated; None while nothing is known.
        training: the number of trials that the workers have in hand, by the share of a run to which
            they train them.
    """

    num_trials: int
    num_asked: int
    num_running: int
    num_pruned: int
    num_complete: int
    num_failed: int
    best: BestTrial | None
    steps: int
    steps_per_second: float
    seconds: float
    seconds_left: float | None
    training: Mapping[float, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RungDecision:
    """The decision of a rung.

    Attributes:
        rung: its index, from 0.
        share: the share of a trial's whole run at which it stands.
        values: the values of the trials it decided about, by number; NaN if the metric is one.
        kept: the numbers of those that continue, or are complete at the last rung.
        cut: numbers of those that end here.
    """

    rung: int
    share: float
    values: Mapping[int, float]
    kept: tuple[int, ...]
    cut: tuple[int, ...]


class StudyObserver:
    """Hears of a study. Every method may be left as it is."""

    def on_start(self, info: StudyInfo) -> None:
        """Hears the start, before the first trial is asked for."""

    def on_trials(self, summary: Summary) -> None:
        """Hears each change: trials asked for, an answer of a worker, a decision."""

    def on_rung(self, decision: RungDecision) -> None:
        """Hears each decision of a rung."""

    def on_notice(self, text: str) -> None:
        """Hears something that a person should know: why packs were split, a lost worker, a costly
        storage."""

    def on_end(self, study: Study) -> None:
        """Hears the end, with the study as it is returned: finished, or stopped. One that fails
        raises instead."""

    def close(self) -> None:
        """Takes away what it shows, however the study ended."""


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
