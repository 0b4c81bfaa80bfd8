"""The accounts of a study while it runs: its trials in memory, in its folder, and in Optuna's
study, in agreement.

Trials are asked for in Optuna first and end in the folder first. So whatever moment a process is
killed at, a resumed study can make the one agree with the other, and tells nothing twice.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Collection, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from volano.errors import ExploreError
from volano.record.study import BestTrial, RungValue, TrialResult, best_of, read_trials
from volano.record.study_folder import PACKS, STUDY, TRIALS, StudyFolder
from volano.study.optuna_storage import StudyStorage, running_trial, storage_errors
from volano.study.successive_halving import SuccessiveHalving
from volano.study.workers.messages import PackFigures, TrialOutcome

_STATES = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL, "complete": TrialState.COMPLETE}
# Optuna keeps attributes of a trial in columns of a database; MySQL's short ones hold 2,048
# characters.
_LONGEST_REASON = 2000


class TrialLedger:
    """Keeps a study's accounts.

    Args:
        folder: the folder of the study, held.
        storage: the storage that Optuna's study is in.
        study: Optuna's.
        rungs: the rungs, which take in the values.
        metric: the metric of the evaluation, by which trials are compared.
        direction: ``"minimize"`` or ``"maximize"``.
    """

    def __init__(
        self, folder: StudyFolder, storage: StudyStorage, study: optuna.Study,
        rungs: SuccessiveHalving, *, metric: str, direction: str,
    ) -> None:  # fmt: skip
        self._folder, self._storage, self._study, self._rungs = folder, storage, study, rungs
        self._metric, self._direction = metric, direction
        self._started = time.perf_counter()
        self._seconds_before = float(folder.read_json(STUDY).get("seconds") or 0.0)
        self._handles: dict[int, optuna.Trial] = {}
        self.trials: dict[int, TrialResult] = {}
        self._kept: dict[int, int] = {}
        self.steps = 0
        self._data: Any = folder.read_json(STUDY).get("data")
        self.notices: list[str] = list(folder.read_json(STUDY).get("notices") or [])

    @property
    def seconds(self) -> float:
        """The seconds since this run of the study began."""
        return time.perf_counter() - self._started

    @property
    def is_shared(self) -> bool:
        """Returns whether others may work on Optuna's study."""
        return self._storage.is_shared

    @property
    def live(self) -> frozenset[int]:
        """Returns the numbers of trials that have neither ended nor been cut."""
        return frozenset(
            number for number, trial in self.trials.items() if trial.state == "running"
        )

    @property
    def best(self) -> BestTrial | None:
        """The best trial so far, or None."""
        return best_of(self.trials.values(), self._direction)

    @property
    def last_reason(self) -> str | None:
        """Returns why the last of the failed trials failed."""
        reasons = [
            trial.reason for _, trial in sorted(self.trials.items()) if trial.state == "failed"
        ]
        return reasons[-1] if reasons else None

    def count(self, state: str) -> int:
        """Returns how many trials are in a state."""
        return sum(trial.state == state for trial in self.trials.values())

    # ---- what happens

    def asked(self, trial: optuna.Trial) -> int:
        """A trial was asked for, and is in Optuna's study."""
        number, params = trial.number, {name: _plain(value) for name, value in trial.params.items()}
        self._handles[number] = trial
        self.trials[number] = TrialResult(number=number, params=params)
        self._event("asked", trial=number, params=params)
        return number

    def shown(self, outcome: TrialOutcome, rung: int, *, seconds: float, worker: int) -> float:
        """A trial has reached a rung. Gives its value."""
        value = float(outcome.metrics[self._metric])
        shown = RungValue(
            rung=rung,
            share=self._rungs.shares[rung],
            step=outcome.step,
            epoch=outcome.epoch,
            value=value if math.isfinite(value) else math.nan,
            metrics=dict(outcome.metrics),
            training_loss=outcome.training_loss,
            seconds=seconds,
        )
        self._take(outcome.number, shown)
        self._event("rung", trial=outcome.number, **dataclasses.asdict(shown), worker=worker)
        self._report(outcome.number, shown)
        return shown.value

    def ended(self, number: int, state: str, reason: str | None = None) -> None:
        """A trial is complete, pruned or failed."""
        reason = reason and reason[:_LONGEST_REASON]
        trial = self.trials[number] = dataclasses.replace(
            self.trials[number], state=state, reason=reason
        )
        self._event("ended", trial=number, state=state, value=trial.value, reason=reason)
        self._tell(trial)

    def decided(self, rung: int, kept: Collection[int], cut: Collection[int]) -> None:
        """A rung has decided."""
        self._kept |= dict.fromkeys(kept, rung)
        self._event("decided", rung=rung, kept=list(kept), cut=list(cut))

    def lost(self, worker: int, numbers: Collection[int], reason: str) -> None:
        """A worker was lost with the trials that it trained."""
        self._event("lost", worker=worker, trials=sorted(numbers), reason=reason)

    def check_data(self, data: Mapping[str, Any] | None) -> None:
        """A worker says on which data its trials are.

        Raises:
            ExploreError: another worker, or an earlier run of this study, had others.
        """
        if data is None:
            return
        found = json.loads(json.dumps(data))  # as it is read back
        if self._data is None:
            self._data = found
            self._folder.update(data=found)
        for name, before in self._data.items():
            if found.get(name) != before:
                raise ExploreError(
                    "All trials of a study must train, and be evaluated, on the same data",
                    got=f"{name}: {found.get(name)} in one worker, and {before} before",
                    remedy="Make splits and samples with a fixed seed; a resumed study needs the "
                    "data that it has",
                )

    def packed(self, facts: PackFigures, *, assignment: int, rung: int, worker: int) -> None:
        """A pack has run."""
        self.steps += facts.steps
        solo = facts.solo_seconds_per_step
        trained = facts.seconds - facts.startup_seconds
        gain = solo * facts.steps / trained if solo is not None and trained > 0 else None
        where = {
            "assignment": assignment,
            "rung": rung,
            "share": self._rungs.shares[rung],
            "worker": worker,
        }
        self._folder.append(
            PACKS, {**where, **dataclasses.asdict(facts), "gain": gain, "at": self._at()}
        )

    def noticed(self, text: str) -> bool:
        """Records something that a person should know; returns whether it is new."""
        if text in self.notices:
            return False
        self.notices.append(text)
        return True

    def save(self, **fields: Any) -> None:
        """Makes the folder hold all that has happened.

        Args:
            fields: the fields of ``study.json``, to be set too.
        """
        self._folder.check_held()
        self._folder.sync_lines()
        self._storage.flush()
        counts = {state: self.count(state) for state in ("running", "pruned", "complete", "failed")}
        best = self.best
        self._folder.update(
            seconds=round(self._at(), 3),
            counts={"asked": len(self.trials), **counts},
            best=None
            if best is None
            else {**dataclasses.asdict(best), "params": dict(best.params)},
            notices=self.notices,
            **fields,
        )

    # ---- resuming

    def take_up(self, *, adopt: bool) -> list[int]:
        """Reads what the folder holds, and makes Optuna's study agree with it. Gives the numbers of
        the trials that Optuna's study alone knows: asked for just before the process was killed.

        Args:
            adopt: whether such trials are this study's at all; not if others work in the same
                storage.
        """
        with storage_errors():
            known = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
            for trial in read_trials(self._folder):
                if trial.number not in known:  # the storage was replaced by another
                    continue
                self.trials[trial.number] = dataclasses.replace(trial, rungs=())
                for shown in trial.rungs:
                    self._take(trial.number, shown)
                ended = known[trial.number].state
                if trial.state == "running" and ended.is_finished():  # by another's hand
                    state = next(name for name, state in _STATES.items() if state == ended)
                    self.ended(trial.number, state, "ended in its storage")
            running = [
                number for number, trial in known.items() if trial.state == TrialState.RUNNING
            ]
            for number in running:
                if number in self.trials or adopt:
                    self._handles[number] = running_trial(self._study, known[number])
        for number in running:
            trial = self.trials.get(number)
            if trial is not None:
                for shown in trial.rungs:
                    self._report(number, shown, known[number].intermediate_values)
                if trial.state != "running":
                    self._tell(trial)
        for event in self._folder.read_lines(TRIALS):
            if event.get("event") == "decided":
                self._kept |= dict.fromkeys(event["kept"], event["rung"])
        self.steps = sum(pack.get("steps", 0) for pack in self._folder.read_lines(PACKS))
        return sorted(self._handles.keys() - self.trials.keys())

    def was_decided(self, number: int, rung: int) -> bool:
        """Returns whether a trial that has reached a rung was kept there."""
        return self._kept.get(number, -1) >= rung

    def handle(self, number: int) -> optuna.Trial:
        """Returns Optuna's trial of a number that runs."""
        return self._handles[number]

    # ---- the three places

    def _take(self, number: int, shown: RungValue) -> None:
        trial = self.trials[number]
        rungs = {rung.rung: rung for rung in trial.rungs} | {shown.rung: shown}
        ordered = tuple(rung for _, rung in sorted(rungs.items()))
        self.trials[number] = dataclasses.replace(trial, rungs=ordered)
        self._rungs.record(shown.rung, number, shown.value)

    def _report(
        self, number: int, shown: RungValue, known: Mapping[int, float] | None = None
    ) -> None:
        """Tells Optuna a value. Its step is the rung, from 1: samplers rank pruned trials by how
        far they came, and optimizer steps mean nothing if the batch size is searched for."""
        handle = self._handles.get(number)
        if handle is not None and shown.rung + 1 not in (known or {}):
            with storage_errors():
                handle.report(shown.value, shown.rung + 1)

    def _tell(self, trial: TrialResult) -> None:
        handle = self._handles.pop(trial.number, None)
        if handle is None:
            return
        with storage_errors():
            if trial.reason:
                handle.set_user_attr("reason", trial.reason)
            value = trial.value if trial.state == "complete" else None
            self._study.tell(handle, value, state=_STATES[trial.state], skip_if_finished=True)

    def _event(self, kind: str, **fields: Any) -> None:
        self._folder.append(TRIALS, {"event": kind, **fields, "at": self._at()})

    def _at(self) -> float:
        return round(self._seconds_before + self.seconds, 3)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
