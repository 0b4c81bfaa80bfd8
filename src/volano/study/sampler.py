"""Asks a sampler for many trials at once, while others are half way."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Container, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

# Splits the seed of a study by how many trials it has asked for: a prime above any number of
# trials.
_STRIDE = 1_000_003


def default_sampler(seed: int, num_asked: int) -> BaseSampler:
    """Returns Optuna's TPE over all parameters together, in which trials asked for and not yet
    known count as bad ones, so that a batch spreads out.

    It is made again for each batch, its seed from the study's and the number of trials asked for
    before: so a study that was stopped continues as if it had not been.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=(seed + _STRIDE * num_asked) % 2**32,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def name_of_sampler(sampler: BaseSampler | None) -> str:
    """Returns the name of a sampler's class; None is the default one."""
    return "TPESampler" if sampler is None else type(sampler).__name__


class RungSampler(BaseSampler):
    """A sampler that sees the trials that have passed a rung, and continue, for what they are.

    To Optuna such a trial is RUNNING: TPE with the constant liar takes it for a bad one, and others
    for unknown, though it is among the best. Here it looks PRUNED at its last rung, which samplers
    rank by how far they came.

    Args:
        sampler: the sampler that is asked.
        live: numbers of trials that are half way.
        on_stop: called when a sampler has nothing left to give, as that of a grid, which then stops
            its study.
    """

    def __init__(
        self, sampler: BaseSampler, live: Container[int], on_stop: Callable[[], None] = lambda: None
    ) -> None:
        self._sampler, self._live, self._on_stop = sampler, live, on_stop

    def _view(self, study: optuna.Study) -> Any:
        return _StudyView(study, self._live, self._on_stop)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, Any]:
        return self._sampler.infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._sampler.sample_independent(
            self._view(study), trial, param_name, param_distribution
        )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(self._view(study), trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState,
        values: Sequence[float] | None,
    ) -> None:  # fmt: skip
        self._sampler.after_trial(self._view(study), trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()


class _StudyView:
    """A study in which live trials with a value look pruned; all else is the study's."""

    def __init__(
        self, study: optuna.Study, live: Container[int], on_stop: Callable[[], None]
    ) -> None:
        self._viewed, self._live, self.stop = study, live, on_stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._viewed, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = [
            self._seen(trial)
            for trial in self._viewed._get_trials(deepcopy=False, use_cache=use_cache)
        ]
        chosen = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        if (
            trial.state != TrialState.RUNNING
            or not trial.intermediate_values
            or trial.number not in self._live
        ):
            return trial
        seen = copy.copy(trial)
        seen.state = TrialState.PRUNED
        seen.value = trial.intermediate_values[max(trial.intermediate_values)]
        return seen
