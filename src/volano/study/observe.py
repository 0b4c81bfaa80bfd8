"""The events of a study, for observers.

on_start(info)
repeat:  on_trials(summary)  on_rung(rung)  on_notice(text)
on_end(study)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from volano.record.study import BestTrial
from volano.study.study import Study


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
