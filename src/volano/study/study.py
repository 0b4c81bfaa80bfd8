"""A study as a value: what its folder says, for reports, for verifying and for whoever goes on from its best trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volano.errors import ExploreError
from volano.record.study_folder import PACKS, STUDY, TRIALS, StudyFolder

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, kw_only=True, slots=True)
class RungValue:
    """What a trial showed at a rung.

    Attributes:
        rung: its index, from 0.
        share: of the trial's whole run at which it stands.
        step: optimizer steps made.
        epoch: the same in epochs.
        value: of the study's metric; NaN where it is one.
        metrics: of the evaluation, ``loss`` among them.
        training_loss: mean since the rung before.
        seconds: of training since then: the trial's part of its pack's.
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
    """What is known of a trial.

    Attributes:
        number: of the trial, as in Optuna.
        params: what the sampler gave, by name.
        state: ``"running"``, ``"pruned"``, ``"complete"`` or ``"failed"``.
        rungs: what it showed at each, lowest first.
        reason: why it was pruned or failed, or None.
    """

    number: int
    params: Mapping[str, Any]
    state: str = "running"
    rungs: tuple[RungValue, ...] = ()
    reason: str | None = None

    @property
    def value(self) -> float | None:
        """Of the study's metric at its last rung, or None before the first."""
        return self.rungs[-1].value if self.rungs else None

    @property
    def share(self) -> float:
        """Of its whole run at which it stands."""
        return self.rungs[-1].share if self.rungs else 0.0

    @property
    def curve(self) -> tuple[tuple[int, float], ...]:
        """Step and value at each rung."""
        return tuple((rung.step, rung.value) for rung in self.rungs)

    @property
    def seconds(self) -> float:
        """Of training: its part of its packs'."""
        return sum(rung.seconds for rung in self.rungs)


@dataclass(frozen=True, kw_only=True, slots=True)
class BestTrial:
    """The best trial so far: of those that came furthest, the one with the best value there.

    Attributes:
        number: of the trial.
        params: what the sampler gave, by name.
        value: of the metric.
        share: of its whole run at which it was measured.
    """

    number: int
    params: Mapping[str, Any]
    value: float
    share: float


class Study:
    """A study that has ended or stopped, or one that another process works on, as its folder says.

    Args:
        folder: of the study, opened.
        optuna_study: where it is at hand.
        build: that made its tasks, where it is at hand.
    """

    def __init__(
        self,
        folder: StudyFolder,
        *,
        optuna_study: optuna.Study | None = None,
        build: Callable[[Any], Any] | None = None,
    ) -> None:
        self.build = build
        self.folder = folder.path
        self.facts: dict[str, Any] = folder.read_json(STUDY)
        self.trials = read_trials(folder)
        self.packs: list[dict[str, Any]] = folder.read_lines(PACKS)
        self._optuna = optuna_study

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """The study in a folder.

        Raises:
            UsageError: there is none.
            CheckpointError: it is of another schema version, or damaged.
        """
        return cls(StudyFolder.open(folder))

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r}, {self.status}, {len(self.trials)} trials)"

    @property
    def status(self) -> str:
        """``"finished"``, ``"stopped"`` (it can go on), ``"running"`` or ``"failed"``."""
        return self.facts["status"]

    @property
    def reason(self) -> str | None:
        """Why it stopped or failed, or None."""
        return self.facts.get("reason")

    @property
    def settings(self) -> Mapping[str, Any]:
        """With which it was started; see record.py."""
        return self.facts.get("settings", {})

    @property
    def best(self) -> BestTrial:
        """The best trial.

        Raises:
            ExploreError: no trial has shown a number yet.
        """
        best = best_of(self.trials, self.settings.get("direction", "minimize"))
        if best is None:
            raise ExploreError("A study's best trial has a value that is a number", got=f"none in {self.folder}")
        return best

    @property
    def optuna(self) -> optuna.Study:
        """Optuna's study, for its plots and its dashboard.

        Raises:
            CheckpointError: its storage cannot be opened.
        """
        if self._optuna is None:
            from volano.study.optuna_storage import load_optuna  # Optuna takes a second to load; most readers need none

            self._optuna = load_optuna(self.folder, self.facts.get("name", ""), self.facts.get("storage"))
        return self._optuna

    def path(self, name: str) -> Path:
        """Where a file of the study's folder lies, for example ``"report.html"``."""
        return self.folder / name

    def trial(self, number: int) -> TrialResult:
        """The trial of a number.

        Raises:
            ExploreError: the study has none of that number.
        """
        for trial in self.trials:
            if trial.number == number:
                return trial
        raise ExploreError("A trial is named by its number", got=number, remedy=f"The study has {len(self.trials)}")


def best_of(trials: Iterable[TrialResult], direction: str) -> BestTrial | None:
    """The best of trials, or None where none has a value that is a number; ties by number."""
    sign = 1.0 if direction == "minimize" else -1.0
    ranked = [
        (-trial.share, sign * trial.value, trial.number, trial)
        for trial in trials
        if trial.value is not None and math.isfinite(trial.value) and trial.state != "failed"
    ]
    if not ranked:
        return None
    _, value, number, trial = min(ranked, key=lambda row: row[:3])
    return BestTrial(number=number, params=trial.params, value=sign * value, share=trial.share)


def read_trials(folder: StudyFolder) -> tuple[TrialResult, ...]:
    """The trials of a study, by number, from its events."""
    found: dict[int, dict[str, Any]] = {}
    for event in folder.read_lines(TRIALS):
        number, kind = event.get("trial"), event.get("event")
        if not isinstance(number, int):
            continue
        if kind == "asked":
            found[number] = {"number": number, "params": event["params"], "rungs": {}}
        elif number not in found:
            continue
        elif kind == "rung":  # one that was lost and trained again shows it twice; the last counts
            found[number]["rungs"][event["rung"]] = _rung(event)
        elif kind == "ended":
            found[number] |= {"state": event["state"], "reason": event["reason"]}
    return tuple(
        TrialResult(**{**fields, "rungs": tuple(rungs for _, rungs in sorted(fields["rungs"].items()))})
        for _, fields in sorted(found.items())
    )


def _rung(event: Mapping[str, Any]) -> RungValue:
    fields = {name: event[name] for name in ("rung", "share", "step", "epoch", "seconds")}
    return RungValue(
        **fields,
        value=_number(event["value"]),
        training_loss=_number(event["training_loss"]),
        metrics={name: _number(value) for name, value in event["metrics"].items()},
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no NaN
