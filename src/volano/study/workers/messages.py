"""The messages between a study's driver and a worker: values that travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A configuration and how far it was trained.

    Attributes:
        number: the number of the trial in the study.
        params: the values that the sampler gave, by name.
        state: the state of the member after its last rung, tensors on the host; None starts it from
            its first step.
    """

    number: int
    params: Mapping[str, Any]
    state: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The trials that a worker is to train up to a rung.

    Attributes:
        number: the number of the assignment in the study.
        trials: each once.
        share: the share of each trial's whole run at which the rung stands, above 0, at most 1.
        keep_states: whether the states come back with the outcomes.
        runs_after: whole runs of a trial that the worker is expected to train after this, which
            says what pays.
    """

    number: int
    trials: tuple[Trial, ...]
    share: float
    keep_states: bool = True
    runs_after: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """The outcome of a trial in an assignment.

    Attributes:
        number: the number of the trial.
        step: the step at which it stands.
        epoch: the same in epochs.
        metrics: the metrics of the evaluation there; empty if it failed.
        training_loss: the mean loss since the last rung; it may be NaN.
        state: see :class:`Trial`; None if it failed or was not asked for.
        failure: first line of what it raised, or None.
    """

    number: int
    step: int
    epoch: float
    metrics: Mapping[str, float]
    training_loss: float
    state: dict[str, Any] | None = None
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class PackFigures:
    """The figures of a pack's run in an assignment.

    Attributes:
        numbers: its trials.
        structure: a name for what the tasks of the pack have in common, alike in all workers.
        engine: the engine that ran it.
        apart: the reason, in words, for which it was split from packs of other structures:
            ``"batch_size: 32, 64"``.
        refused: the reasons for which engines were not taken, by name.
        seconds: the seconds of start-up and training; evaluation apart.
        startup_seconds: the seconds of making the pack, of timing its engines and of compiling; 0
            for one that is kept.
        steps: configuration-steps made: optimizer steps, summed over its members.
        solo_seconds_per_step: the seconds per step of one member trained alone, if that was
            measured; None if not, and for the loop.
    """

    numbers: tuple[int, ...]
    structure: str
    engine: str
    apart: tuple[str, ...]
    refused: Mapping[str, str]
    seconds: float
    startup_seconds: float
    evaluation_seconds: float
    steps: int
    solo_seconds_per_step: float | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A worker's answer to an assignment.

    Attributes:
        assignment: its number.
        outcomes: one for each trial.
        packs: one for each pack.
        notices: texts that a person should read.
        data: the data on which the worker's trials train and are evaluated, in words and digests;
            None before it has made one.
    """

    assignment: int
    outcomes: tuple[TrialOutcome, ...]
    packs: tuple[PackFigures, ...] = ()
    notices: tuple[str, ...] = field(default=())
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A worker has ended before it answered: what it held in memory is gone.

    Attributes:
        assignment: the number of the one that it worked on.
        reason: the reason in words.
    """

    assignment: int
    reason: str
