"""A study as its folder tells it: for reports, for verifying, and for resuming it. Needs
neither torch nor Optuna.

What the files hold stands in ``volano.record.study_folder``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.bounded_json import parse_json
from volano.errors import CheckpointError
from volano.record.files import another_programs, no_folder_of
from volano.record.json_values import mapping, number, read_lines, read_object
from volano.record.run_folder import SCHEMA_VERSION
from volano.record.study_folder import JOURNAL, PACKS, STUDY, TRIALS, StudyFolder

# Optuna's operation that sets a parameter of a trial (optuna.storages.journal,
# JournalOperation.SET_TRIAL_PARAM).
_SET_PARAMETER = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class RungValue:
    """The value of a trial at a rung.

    Attributes:
        rung: its index, from 0.
        share: the share of the trial's whole run at which it stands.
        step: optimizer steps made.
        epoch: the same in epochs.
        value: the value of the study's metric; it may be NaN.
        metrics: the metrics of the evaluation, ``loss`` among them.
        training_loss: mean since the rung before.
        seconds: the seconds of training since then: the trial's part of its pack's.
    """

    rung: int
    share: float
    step: int
    epoch: float
    value: float
    metrics: Mapping[str, float]
    training_loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """The results of a trial.

    Attributes:
        number: the number of the trial, as in Optuna.
        params: the values that the sampler gave, by name.
        state: ``"running"``, ``"pruned"``, ``"complete"`` or ``"failed"``.
        rungs: the values that it showed at each, lowest first.
        reason: the reason for which it was pruned or failed, or None.
    """

    number: int
    params: Mapping[str, Any]
    state: str = "running"
    rungs: tuple[RungValue, ...] = ()
    reason: str | None = None

    @property
    def value(self) -> float | None:
        """The study's metric at its last rung, or None before the first."""
        return self.rungs[-1].value if self.rungs else None

    @property
    def finite_value(self) -> float | None:
        """The same, and None too if it is no finite number."""
        return self.rungs[-1].value if self.rungs and math.isfinite(self.rungs[-1].value) else None

    @property
    def share(self) -> float:
        """The share of its whole run at which it stands."""
        return self.rungs[-1].share if self.rungs else 0.0

    @property
    def curve(self) -> tuple[tuple[int, float], ...]:
        """Returns step and value at each rung."""
        return tuple((rung.step, rung.value) for rung in self.rungs)

    @property
    def seconds(self) -> float:
        """The seconds of training: its share of its packs' time."""
        return sum(rung.seconds for rung in self.rungs)


@dataclass(frozen=True, kw_only=True, slots=True)
class BestTrial:
    """The best trial so far: of those that came furthest, the one with the best value there.

    Attributes:
        number: the number of the trial.
        params: the values that the sampler gave, by name.
        value: the value of the metric.
        share: the share of its whole run at which it was measured.
    """

    number: int
    params: Mapping[str, Any]
    value: float
    share: float


@dataclass(kw_only=True, eq=False)
class StudyRecord:
    """The content of a study's folder.

    Attributes:
        folder: the folder of the study.
        facts: ``study.json``; may be empty.
        trials: the trials by number.
        packs: lines of ``packs.jsonl``.
        losses: events of lost workers.
        missing: the things that are not there or cannot be read, one sentence each.
    """

    folder: Path
    facts: Mapping[str, Any]
    trials: tuple[TrialResult, ...]
    packs: tuple[Mapping[str, Any], ...]
    losses: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name or str(self.folder)

    @property
    def status(self) -> str:
        """The status: ``"finished"``, ``"stopped"`` (it can be resumed), ``"failed"``,
        ``"running"``, ``"starting"``, ``"unknown"``."""
        return str(self.facts.get("status") or "unknown")

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings with which it was started."""
        return mapping(self.facts.get("settings"))

    @property
    def metric(self) -> str:
        """The metric by which trials are compared."""
        return str(self.settings.get("metric") or "loss")

    @property
    def is_maximized(self) -> bool:
        """Returns whether a larger value is the better one."""
        return self.settings.get("direction") == "maximize"

    @property
    def parameters(self) -> list[str]:
        """The names of all that was varied, in the order in which trials first had them."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.params))

    @property
    def ranked(self) -> list[TrialResult]:
        """Returns the trials, the best first: those that have shown a number before the others, and
        failed ones last in either group."""
        return sorted(self.trials, key=lambda trial: _standing(trial, self.is_maximized))

    def find_best(self) -> BestTrial | None:
        """Returns the best trial, or None if none has shown a number."""
        return best_of(self.trials, "maximize" if self.is_maximized else "minimize")


def read_study(path: str | Path) -> StudyRecord:
    """Reads a study's folder as a report does: a piece that is missing or damaged raises nothing.

    Raises:
        UsageError: it is not one.
    """
    folder = Path(path)
    if not (folder / STUDY).is_file():
        raise no_folder_of(folder, STUDY)
    missing: list[str] = []
    facts = read_object(folder / STUDY, missing)
    version = facts.get("schema_version")
    if facts and version is None:
        raise another_programs(folder, STUDY)
    if facts and version != SCHEMA_VERSION:
        missing.append(
            f"{STUDY} is of schema version {version}; this page was made for version "
            f"{SCHEMA_VERSION}"
        )
    events = read_lines(folder / TRIALS, missing, is_expected=facts.get("status") == "finished")
    packs = read_lines(folder / PACKS, missing, is_expected=False)
    return StudyRecord(
        folder=folder,
        facts=facts,
        trials=trials_of(events, is_tolerant=True),
        packs=packs,
        losses=tuple(event for event in events if event.get("event") == "lost"),
        missing=tuple(missing),
    )


def read_trials(folder: StudyFolder) -> tuple[TrialResult, ...]:
    """Returns the trials of a study, by number.

    Raises:
        CheckpointError: an event lacks what it must hold.
    """
    return trials_of(folder.read_lines(TRIALS))


def trials_of(
    events: Iterable[Mapping[str, Any]], *, is_tolerant: bool = False
) -> tuple[TrialResult, ...]:
    """Returns the trials, by number, that lines of ``trials.jsonl`` tell of.

    Args:
        is_tolerant: whether what an event lacks is left open, rather than an error.

    Raises:
        CheckpointError: an event lacks what it must hold.
    """
    asked: dict[int, Mapping[str, Any]] = {}
    rungs: dict[int, dict[int, RungValue]] = {}
    ended: dict[int, Mapping[str, Any]] = {}
    for event in events:
        trial, kind = event.get("trial"), event.get("event")
        if not isinstance(trial, int) or isinstance(trial, bool):
            continue
        if not is_tolerant:
            _check_event(event)
        if kind == "asked":
            asked[trial] = event
        elif kind == "rung" and isinstance(event.get("rung"), int):
            # One that was lost and trained again shows it twice; the last counts.
            rungs.setdefault(trial, {})[event["rung"]] = _rung(event)
        elif kind == "ended":
            ended[trial] = event
    alive = {"state": "running"}
    return tuple(
        TrialResult(
            number=trial,
            params=dict(mapping(event.get("params"))),
            state=str(end.get("state") or "unknown"),
            rungs=tuple(shown for _, shown in sorted(rungs.get(trial, {}).items())),
            reason=str(end["reason"]) if end.get("reason") else None,
        )
        for trial, event in sorted(asked.items())
        for end in (ended.get(trial, alive),)
    )


def best_of(trials: Iterable[TrialResult], direction: str) -> BestTrial | None:
    """Returns the best of trials, or None if none has a value that is a number; ties by number."""
    able = [trial for trial in trials if trial.finite_value is not None and trial.state != "failed"]
    if not able:
        return None
    best = min(able, key=lambda trial: _standing(trial, direction == "maximize"))
    assert best.value is not None
    return BestTrial(number=best.number, params=best.params, value=best.value, share=best.share)


def read_space(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Returns the attributes of each parameter's distribution that Optuna's journal tells of; none
    of a study with a storage of another kind."""
    found: dict[str, Mapping[str, Any]] = {}
    for line in read_lines(folder / JOURNAL, [], is_expected=False):
        name, text = line.get("param_name"), line.get("distribution")
        if line.get("op_code") != _SET_PARAMETER or not isinstance(name, str) or name in found:
            continue
        with contextlib.suppress(ValueError):
            stated = parse_json(text) if isinstance(text, str) else None
            found[name] = mapping(mapping(stated).get("attributes"))
    return found


def _standing(trial: TrialResult, is_maximized: bool) -> tuple[Any, ...]:
    # Values of different rungs are of different lengths of training: who came further comes first.
    value, has_failed = trial.finite_value, trial.state == "failed"
    if value is None:
        return (1, has_failed, -trial.share, 0.0, trial.number)
    return (0, has_failed, -trial.share, -value if is_maximized else value, trial.number)


# What events hold, by kind; JSON has no NaN, so a number that may be one may be null.
_FIGURES, _MAYBE_NAN = ("rung", "share", "step", "epoch", "seconds"), ("value", "training_loss")


def _check_event(event: Mapping[str, Any]) -> None:
    kind = event.get("event")
    if kind == "asked":
        is_whole = isinstance(event.get("params"), Mapping)
    elif kind == "rung":
        is_whole = (
            all(number(event.get(name)) is not None for name in _FIGURES)
            and all(name in event and _is_number_or_null(event[name]) for name in _MAYBE_NAN)
            and isinstance(event.get("metrics"), Mapping)
            and all(map(_is_number_or_null, event["metrics"].values()))
        )
    else:
        is_whole = kind != "ended" or (isinstance(event.get("state"), str) and "reason" in event)
    if not is_whole:
        raise CheckpointError(f"{TRIALS} of a study must hold whole events", got=str(event)[:200])


def _is_number_or_null(value: Any) -> bool:
    return value is None or number(value) is not None


def _rung(event: Mapping[str, Any]) -> RungValue:
    return RungValue(
        rung=event["rung"],
        share=number(event.get("share")) or 0.0,
        step=int(number(event.get("step")) or 0),
        epoch=_or_nan(event.get("epoch")),
        value=_or_nan(event.get("value")),
        metrics={name: _or_nan(value) for name, value in mapping(event.get("metrics")).items()},
        training_loss=_or_nan(event.get("training_loss")),
        seconds=number(event.get("seconds")) or 0.0,
    )


def _or_nan(value: Any) -> float:
    found = number(value)
    return math.nan if found is None else found
