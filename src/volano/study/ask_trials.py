"""Asks for trials and builds their tasks once, to learn what each trial's parameters are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FixedTrial

from volano.errors import ExploreError, UsageError, reason_of
from volano.study.optuna_storage import is_of_storage, num_grid_points, storage_errors
from volano.study.sampler import RungSampler, default_sampler
from volano.study.workers.trial_tasks import Build, check_task, step_of_rung
from volano.task import Task

# A trial; if its task cannot be made, how it has ended and why.
Asked = tuple[optuna.Trial, str | None, str | None]
# So many failures from the first one on are no accident of the sampler's choice.
_NUM_CHANCES = 10


class TrialSource:
    """Asks Optuna for trials.

    Args:
        build: the function that makes a trial's task.
        study: Optuna's.
        sampler: the sampler of the user, or None for the default one.
        seed: the seed of the default one.
    """

    def __init__(
        self, build: Build, study: optuna.Study, sampler: BaseSampler | None, seed: int
    ) -> None:
        self._build, self._study, self._sampler, self._seed = build, study, sampler, seed
        self._num_asked = self._num_built = self._num_failed = 0
        self._before = next((trial.distributions for trial in study.get_trials(deepcopy=False)), {})
        # Optuna's grid says that it is exhausted when all its points have been told, not when all
        # were asked for.
        self._num_points = num_grid_points(sampler)
        self.is_exhausted = False

    def prepare(self, num_asked: int, live: frozenset[int]) -> None:
        """Makes the sampler ready for a batch.

        Args:
            num_asked: trials that the study has asked for before.
            live: numbers of those that are half way.
        """
        sampler = (
            self._sampler if self._sampler is not None else default_sampler(self._seed, num_asked)
        )
        self._study.sampler = RungSampler(sampler, live, on_stop=self._stop)
        self._num_asked = num_asked
        self.is_exhausted = self.is_exhausted or (
            self._num_points is not None and num_asked >= self._num_points
        )

    def _stop(self) -> None:
        self.is_exhausted = True

    def ask(self) -> Asked:
        """A new trial; and if its task cannot be made, how it has ended (``"pruned"`` or
        ``"failed"``) and why.

        Raises:
            UsageError: ``build`` is invalid: it returns no Task, or one that cannot be
                compared at rungs.
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
                "build(trial) must suggest at least one parameter",
                got="none",
                remedy='Call trial.suggest_float("lr", 1e-4, 1e-1, log=True) or its like in it',
            )
        if self._is_again(trial):
            self.is_exhausted = True
            return (
                trial,
                "pruned",
                "it has the parameters of an earlier trial: the sampler has tried them all",
            )
        return trial, None, None

    def _is_again(self, trial: optuna.Trial) -> bool:
        """Returns whether a sampler that tries everything once begins again. It says so only when
        all results have been told."""
        if not isinstance(self._sampler, optuna.samplers.BruteForceSampler):
            return False
        earlier = self._study.get_trials(deepcopy=False)
        return any(
            other.number != trial.number and other.params == trial.params for other in earlier
        )

    def _failed(self, error: Exception) -> str:
        self._num_failed += 1
        reason = reason_of(error)
        if self._num_failed == self._num_built == _NUM_CHANCES:
            raise ExploreError(
                "build(trial) must make a task",
                got=f"an error in each of the first {_NUM_CHANCES} trials, the last: {reason}",
                remedy="Mend it; it can be tried alone: build(optuna.trial.FixedTrial({...}))",
            ) from error
        return reason

    def _check_distributions(self, now: Mapping[str, Any]) -> None:
        check_choices(now)
        differences = differences_of_space(
            self._before, {name: now[name] for name in now if name in self._before}
        )
        self._before = {**now, **self._before}
        if differences:
            raise UsageError(
                "The space of a parameter must stay the same throughout a study",
                got="; ".join(differences),
                remedy="Give a parameter with another range another name, or start another study",
            )


def check_choices(distributions: Mapping[str, Any]) -> None:
    """Raises UsageError if a choice is not of the kinds that a study's journal gives back as
    they were: JSON makes lists of tuples."""
    for name, distribution in distributions.items():
        for choice in getattr(distribution, "choices", ()):
            if not isinstance(choice, bool | int | float | str | None):
                raise UsageError(
                    "The choices of a parameter must be numbers, texts, True, False or None",
                    got=f"{choice!r} of {name!r}",
                    remedy=f"Suggest names of them: {{'a': {choice!r}, "
                    f"...}}[trial.suggest_categorical({name!r}, ...)]",
                )


def check_space(
    build: Build, trials: list[optuna.trial.FrozenTrial], steps: Mapping[int, Mapping[float, int]]
) -> None:
    """Raises UsageError unless ``build`` makes of trials of before what it made then.

    Args:
        build: the function that makes a trial's task.
        trials: some of before.
        steps: the steps at which each stood, by its number and the share of its run.
    """
    for trial in trials:
        again = FixedTrial(trial.params, number=trial.number)
        task, missing = None, None
        try:
            with warnings.catch_warnings():
                # Of values out of range, which the difference tells better.
                warnings.simplefilter("ignore")
                task = build(again)
        except Exception as error:  # noqa: BLE001 - it may have failed then too
            missing = str(error)
        differences = differences_of_space(trial.distributions, again.distributions)
        if missing is not None and "is not found" in missing and "parameter" in missing:
            differences.append(
                f"new: {missing.split(' is not found')[0].rpartition('parameter ')[2]}"
            )
        elif missing is None:
            gone = trial.distributions.keys() - again.distributions.keys()
            differences += [f"{name!r} is suggested no more" for name in sorted(gone)]
        if isinstance(task, Task):
            differences += differences_of_length(task, steps.get(trial.number, {}))
        if differences:
            raise UsageError(
                "A resumed study must keep its space, and the length of its runs",
                got="; ".join(differences),
                remedy="Resume with the build that it was started with, or start another study",
            )


def differences_of_length(task: Task, steps: Mapping[float, int]) -> list[str]:
    """Describes the rungs (step by share) that would stand elsewhere in a trial's run than they
    did."""
    return [
        f"{share:.0%} of a run was step {step} and is step {step_of_rung(task, share)}"
        for share, step in steps.items()
        if step_of_rung(task, share) != step
    ][:1]


def differences_of_space(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describes the parameters that have two different distributions."""
    return [
        f"{name!r} was {before[name]} and is {now[name]}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
