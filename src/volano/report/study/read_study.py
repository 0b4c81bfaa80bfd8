"""A study's folder as a report reads it: whatever is there, and in words what is not. Needs neither torch nor Optuna.

What the files hold stands in ``volano.record.study_folder``. As with a run's folder, a piece that is missing or damaged
raises nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.errors import UsageError
from volano.record.read_run import mapping, number, read_lines, read_object, sequence

_SCHEMA_VERSION = 1  # of study.json, see record/study_folder.py
# Optuna's operation that sets a parameter of a trial (optuna.storages.journal, JournalOperation.SET_TRIAL_PARAM).
_SET_PARAMETER = 5


@dataclass(frozen=True, kw_only=True)
class RungRecord:
    """What a trial showed at a rung. ``value`` is NaN where it was no number; ``epoch`` NaN where it is not known."""

    rung: int
    share: float
    epoch: float
    value: float


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial. ``state`` is ``"running"``, ``"pruned"``, ``"complete"``, ``"failed"`` or what the file says; ``reason``
    is empty where there is none."""

    number: int
    params: Mapping[str, Any]
    state: str
    rungs: tuple[RungRecord, ...]
    reason: str

    @property
    def value(self) -> float | None:
        """At its last rung, where that is a number."""
        return self.rungs[-1].value if self.rungs and math.isfinite(self.rungs[-1].value) else None

    @property
    def share(self) -> float:
        """Of its whole run at which it stands."""
        return self.rungs[-1].share if self.rungs else 0.0


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What a study's folder says.

    Attributes:
        path: the folder.
        facts: ``study.json``; may be empty.
        trials: those that a value has been seen of before those without, the best first.
        packs: lines of ``packs.jsonl``.
        losses: events of lost workers.
        space: of each parameter that Optuna's journal tells of, its distribution's attributes.
        missing: what is not there or cannot be read, one sentence each.
    """

    path: Path
    facts: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    packs: tuple[Mapping[str, Any], ...]
    losses: tuple[Mapping[str, Any], ...]
    space: Mapping[str, Mapping[str, Any]]
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name or str(self.path)

    @property
    def status(self) -> str:
        """``"finished"``, ``"stopped"``, ``"failed"``, ``"running"``, ``"starting"`` or ``"unknown"``."""
        return str(self.facts.get("status") or "unknown")

    @property
    def settings(self) -> Mapping[str, Any]:
        """With which it was started."""
        return mapping(self.facts.get("settings"))

    @property
    def metric(self) -> str:
        """By which trials are compared."""
        return str(self.settings.get("metric") or "loss")

    @property
    def is_maximized(self) -> bool:
        """Whether a larger value is the better one."""
        return self.settings.get("direction") == "maximize"

    @property
    def best(self) -> TrialRecord | None:
        """Of those that came furthest, the one with the best value there; None where none has shown a number."""
        return next((trial for trial in self.trials if trial.value is not None and trial.state != "failed"), None)

    @property
    def parameters(self) -> list[str]:
        """Names of all that was varied, in the order in which trials first had them."""
        names: dict[str, None] = {}
        for trial in sorted(self.trials, key=lambda trial: trial.number):
            names.update(dict.fromkeys(trial.params))
        return list(names)


def read_study(path: str | Path) -> StudyRecord:
    """Reads a study's folder.

    Raises:
        UsageError: it is not one.
    """
    folder = Path(path)
    if not (folder / "study.json").is_file():
        raise UsageError(
            "A study's folder holds study.json", got=str(path), remedy="Name the folder that explore printed"
        )
    missing: list[str] = []
    facts = read_object(folder / "study.json", missing)
    if facts and facts.get("schema_version") != _SCHEMA_VERSION:
        missing.append(
            f"study.json is of schema version {facts.get('schema_version')}; this page was made for version 1"
        )
    events = read_lines(folder / "trials.jsonl", missing, is_expected=facts.get("status") == "finished")
    is_maximized = mapping(facts.get("settings")).get("direction") == "maximize"
    return StudyRecord(
        path=folder,
        facts=facts,
        trials=tuple(sorted(_trials(events), key=lambda trial: _standing(trial, is_maximized))),
        packs=read_lines(folder / "packs.jsonl", missing, is_expected=False),
        losses=tuple(event for event in events if event.get("event") == "lost"),
        space=_space(folder / "journal.log"),
        missing=tuple(missing),
    )


def _standing(trial: TrialRecord, is_maximized: bool) -> tuple[Any, ...]:
    # Values of different rungs are of different lengths of training: who came further comes first.
    value = trial.value
    if value is None:
        return (1, trial.state == "failed", -trial.share, 0.0, trial.number)
    return (0, trial.state == "failed", -trial.share, -value if is_maximized else value, trial.number)


def _trials(events: tuple[Mapping[str, Any], ...]) -> list[TrialRecord]:
    asked: dict[int, Mapping[str, Any]] = {}
    rungs: dict[int, dict[int, RungRecord]] = {}
    ended: dict[int, Mapping[str, Any]] = {}
    for event in events:
        trial, kind = event.get("trial"), event.get("event")
        if not isinstance(trial, int) or isinstance(trial, bool):
            continue
        if kind == "asked":
            asked[trial] = event
        elif kind == "rung" and isinstance(event.get("rung"), int):  # shown twice, the last counts
            rungs.setdefault(trial, {})[event["rung"]] = _rung(event)
        elif kind == "ended":
            ended[trial] = event
    return [
        TrialRecord(
            number=trial,
            params={str(name): value for name, value in mapping(event.get("params")).items()},
            state=str(ended[trial].get("state") or "unknown") if trial in ended else "running",
            rungs=tuple(shown for _, shown in sorted(rungs.get(trial, {}).items())),
            reason=str(ended.get(trial, {}).get("reason") or ""),
        )
        for trial, event in asked.items()
    ]


def _rung(event: Mapping[str, Any]) -> RungRecord:
    value, epoch = number(event.get("value")), number(event.get("epoch"))
    return RungRecord(
        rung=event["rung"],
        share=number(event.get("share")) or 0.0,
        epoch=math.nan if epoch is None else epoch,
        value=math.nan if value is None else value,
    )


def _space(path: Path) -> dict[str, Mapping[str, Any]]:
    """From Optuna's journal; empty where the study has a storage of another kind."""
    found: dict[str, Mapping[str, Any]] = {}
    for line in read_lines(path, [], is_expected=False):
        name, text = line.get("param_name"), line.get("distribution")
        if line.get("op_code") != _SET_PARAMETER or not isinstance(name, str) or name in found:
            continue
        try:
            found[name] = mapping(mapping(json.loads(text)).get("attributes")) if isinstance(text, str) else {}
        except (ValueError, RecursionError):
            continue
    return found


def values_of(pack: Mapping[str, Any]) -> list[int]:
    """The trials of a pack."""
    return [value for value in sequence(pack.get("numbers")) if isinstance(value, int)]
