"""Estimates how much each parameter of a study matters, over trials that were trained equally
far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from volano.record.json_values import number
from volano.record.study import TrialResult, read_space
from volano.report import LEAST_TRIALS, Importances
from volano.study.study import Study

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# Values that span so many times their least are taken for ones that were drawn on a logarithmic
# scale, where nothing says so.
_LOG_FROM = 100
_SEED = 0  # of the forest that the estimate grows: a page that is written again says the same


def importances(study: Study) -> Importances:
    """The share of the values' spread that each parameter explains, as Optuna estimates it by
    fANOVA.

    The few trials that are complete are the best of all: they differ by chance, not by what
    matters. So the values are those of the furthest rung that every trial with a value has reached,
    mostly the first. They come from the study's own files: a storage that these name is not opened.
    Raises nothing: a study is worth more than a page about it.
    """
    trials = [(trial, found) for trial in study.trials if (found := _finite(trial))]
    rung = min((max(found) for _, found in trials), default=0)
    values = {trial.number: found[rung] for trial, found in trials if rung in found}
    share = next(
        (shown.share for trial, _ in trials for shown in trial.rungs if shown.rung == rung), 0.0
    )
    shares: dict[str, float] = {}
    failure = ""
    try:
        if len(values) >= LEAST_TRIALS and len(set(values.values())) > 1:
            shares = _estimated(study.trials, _distributions(study), values)
    except Exception as error:  # noqa: BLE001 - Optuna raises various errors if it cannot tell, see above
        failure = f"{type(error).__name__}: {error}"
    is_flat = len(set(values.values())) == 1
    return Importances(
        shares=shares, num_trials=len(values), share=share, is_flat=is_flat, failure=failure
    )


def _finite(trial: TrialResult) -> dict[int, float]:
    """A trial's values that are numbers, by rung."""
    return {shown.rung: shown.value for shown in trial.rungs if math.isfinite(shown.value)}


def _distributions(study: Study) -> dict[str, BaseDistribution]:
    """Returns the parameters' distributions, of which the journal in the folder tells, or else the
    narrowest that hold the values."""
    space = read_space(study.folder)
    values: dict[str, list[Any]] = {}
    for trial in study.trials:
        for name, value in trial.params.items():
            values.setdefault(name, []).append(value)
    return {name: _distribution(space.get(name), own) for name, own in values.items()}


def _distribution(told: Mapping[str, Any] | None, values: Sequence[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if told and "choices" in told:
        return CategoricalDistribution(told["choices"])
    if told:
        is_whole = isinstance(told["low"], int) and isinstance(told["high"], int)
        return (IntDistribution if is_whole else FloatDistribution)(**told)
    if any(isinstance(value, bool) or number(value) is None for value in values):
        return CategoricalDistribution(
            [one for at, one in enumerate(values) if one not in values[:at]]
        )
    low, high = min(values), max(values)
    is_log = low > 0 and high / low >= _LOG_FROM
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=is_log)
    return FloatDistribution(low, high, log=is_log)


def _estimated(
    trials: Sequence[TrialResult | FrozenTrial],
    distributions: Mapping[str, BaseDistribution],
    values: Mapping[int, float],
) -> dict[str, float]:
    """Returns the importances, largest first. Optuna looks at complete trials alone, so the trials
    are shown to it in a study in which all are complete."""
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a new study is announced
    try:
        shown = optuna.create_study()  # in whichever direction: the spread is the same
    finally:
        optuna.logging.set_verbosity(verbosity)
    for trial in trials:
        if trial.number in values:
            own = {name: distributions[name] for name in trial.params}
            shown.add_trial(
                optuna.trial.create_trial(
                    params=dict(trial.params), distributions=own, value=values[trial.number]
                )
            )
    # Named, for Optuna's default is another in each of its versions, and not all of them estimate
    # shares of a spread.
    found = get_param_importances(shown, evaluator=FanovaImportanceEvaluator(seed=_SEED))
    return {name: float(value) for name, value in found.items()}
