"""Asks for trials and builds their tasks once, to learn what each trial's parameters are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FixedTrial

from volano.errors import ExploreError, UsageError
from volano.exploring.sampling import RungSampler, default_sampler
from volano.exploring.storage import is_of_storage, storage_errors
from volano.task import Task

Build = Callable[[Any], Task]
# So many failures from the first one on are no accident of the sampler's choice.
_NUM_CHANCES = 10


class Asker:
    """Asks Optuna for trials.

    Args:
        build: makes a trial's task.
        study: Optuna's.
        sampler: of the user, or None for the default one.
        seed: of the default one.
    """

    def __init__(self, build: Build, study: optuna.Study, sampler: BaseSampler | None, seed: int) -> None:
        self._build, self._study, self._sampler, self._seed = build, study, sampler, seed
        self._num_asked = self._num_built = self._num_failed = 0
        self._before = next((trial.distributions for trial in study.get_trials(deepcopy=False)), {})
        # Optuna's grid says that it is exhausted when all its points have been told, not when all were asked for.
        self._num_points = len(getattr(sampler, "_all_grids", ())) or None
        self.is_exhausted = False

    @property
    def sampler_name(self) -> str:
        """Of the sampler's class."""
        return type(self._sampler).__name__ if self._sampler is not None else "TPESampler"

    def prepare(self, num_asked: int, live: frozenset[int]) -> None:
        """Makes the sampler ready for a batch.

        Args:
            num_asked: trials that the study has asked for before.
            live: numbers of those that are half way.
        """
        sampler = self._sampler if self._sampler is not None else default_sampler(self._seed, num_asked)
        self._study.sampler = RungSampler(sampler, live, on_stop=self._stop)
        self._num_asked = num_asked

    def _stop(self) -> None:
        self.is_exhausted = True

    def ask(self) -> tuple[optuna.Trial, str | None, str | None]:
        """A new trial; and where its task cannot be made, how it has ended (``"pruned"`` or ``"failed"``) and why.

        Raises:
            UsageError: ``build`` cannot be meant: it returns no Task, or one that cannot be compared at rungs.
            ExploreError: it suggests nothing, or fails again and again.
        """
        with storage_errors():
            trial = self._study.ask()
        self._num_built += 1
        self._num_asked += 1
        self.is_exhausted = self.is_exhausted or self._num_asked == self._num_points
        try:
            task = self._build(trial)
        except optuna.TrialPruned as error:
            return trial, "pruned", f"pruned while it was built: {error}".rstrip(": ")
        except Exception as error:
            if is_of_storage(error):
                with storage_errors():
                    raise
            self._check_distributions(trial.distributions)
            return trial, "failed", self._failed(error)
        check_task(task)
        self._check_distributions(trial.distributions)
        if not trial.params:
            raise ExploreError(
                "build(trial) suggests at least one parameter",
                got="none",
                remedy='Call trial.suggest_float("lr", 1e-4, 1e-1, log=True) or its like in it',
            )
        return trial, None, None

    def _failed(self, error: Exception) -> str:
        self._num_failed += 1
        reason = reason_of(error)
        if self._num_failed == self._num_built == _NUM_CHANCES:
            raise ExploreError(
                "build(trial) makes a task",
                got=f"an error in each of the first {_NUM_CHANCES} trials, the last: {reason}",
                remedy="Mend it; it can be tried alone: build(optuna.trial.FixedTrial({...}))",
            ) from error
        return reason

    def _check_distributions(self, now: Mapping[str, Any]) -> None:
        differences = differences_of_space(self._before, {name: now[name] for name in now if name in self._before})
        self._before = {**now, **self._before}
        if differences:
            raise UsageError(
                "The space of a parameter stays the same throughout a study",
                got="; ".join(differences),
                remedy="Give a parameter with another range another name, or start another study",
            )


def check_task(task: Any) -> None:
    """Raises UsageError unless trials that build such a thing can be compared at rungs."""
    if not isinstance(task, Task):
        raise UsageError("build(trial) returns a volano.Task", got=type(task).__name__)
    if task.valid is None:
        raise UsageError(
            "The tasks of a study have a validation set: rungs compare what it shows",
            got="valid=None",
            remedy="Give valid=",
        )


def check_space(build: Build, trials: list[optuna.trial.FrozenTrial]) -> None:
    """Raises UsageError unless ``build`` suggests for trials of before what it suggested then.

    Args:
        build: makes a trial's task.
        trials: some of before.
    """
    for trial in trials:
        again = FixedTrial(trial.params, number=trial.number)
        missing = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of values out of range, which the difference tells better
                build(again)
        except Exception as error:  # noqa: BLE001 - it may have failed then too
            missing = str(error)
        differences = differences_of_space(trial.distributions, again.distributions)
        if missing is not None and "is not found" in missing and "parameter" in missing:
            differences.append(f"new: {missing.split(' is not found')[0].rpartition('parameter ')[2]}")
        elif missing is None:
            gone = trial.distributions.keys() - again.distributions.keys()
            differences += [f"{name!r} is suggested no more" for name in sorted(gone)]
        if differences:
            raise UsageError(
                "A study goes on with the space that it has",
                got="; ".join(differences),
                remedy="Resume with the build that it was started with, or start another study",
            )


def differences_of_space(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, where a parameter in both has two distributions."""
    return [
        f"{name!r} was {before[name]} and is {now[name]}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]


def reason_of(error: BaseException) -> str:
    """First line of what an error says, with its kind."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
