"""Batches of trials from a sampler."""

from __future__ import annotations

import warnings

import optuna
import pytest
from optuna.trial import TrialState

from study.standin import Heard, Standin, run, task
from volano.study.sampler import RungSampler, default_sampler


def space(trial):
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "decay": trial.suggest_float("decay", 0.0, 0.1),
        "depth": trial.suggest_int("depth", 1, 8),
        "kind": trial.suggest_categorical("kind", ["a", "b", "c"]),
    }


@pytest.fixture
def quiet_study():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield optuna.create_study(pruner=optuna.pruners.NopPruner())
    optuna.logging.set_verbosity(verbosity)


def test_a_batch_of_27_has_valid_parameters_all_different(quiet_study):
    # TPE over all parameters together with the constant liar was broken twice (optuna #6189,
    # #6505).
    for batch in range(3):
        quiet_study.sampler = RungSampler(default_sampler(7, 27 * batch), frozenset())
        trials = [quiet_study.ask() for _ in range(27)]
        asked = [space(trial) for trial in trials]
        for params in asked:
            assert 1e-4 <= params["lr"] <= 1e-1
            assert 0.0 <= params["decay"] <= 0.1
            assert params["depth"] in range(1, 9)
            assert params["kind"] in ("a", "b", "c")
        assert len({tuple(params.values()) for params in asked}) == 27
        for trial, params in zip(trials, asked, strict=True):
            trial.report(abs(params["decay"] - 0.05), 1)
            quiet_study.tell(trial, state=TrialState.PRUNED)
    assert len(quiet_study.trials) == 81


def test_a_batch_is_spread_out_and_learns_from_the_one_before(quiet_study):
    means = []
    for batch in range(4):
        quiet_study.sampler = RungSampler(default_sampler(0, 20 * batch), frozenset())
        trials = [quiet_study.ask() for _ in range(20)]
        values = [trial.suggest_float("x", 0.0, 1.0) for trial in trials]
        means.append(sum(abs(value - 0.8) for value in values) / 20)
        assert max(values) - min(values) > 0.1
        for trial, value in zip(trials, values, strict=True):
            quiet_study.tell(trial, abs(value - 0.8))
    assert means[-1] < means[0] / 2


def test_survivors_of_a_rung_count_as_what_they_are(quiet_study):
    # Half of the trials are good and go on, so they run; the others were cut. Taken for bad ones,
    # as the constant liar takes running trials, they would drive the sampler away from where it
    # should look.
    def means(live):
        quiet_study = optuna.create_study(pruner=optuna.pruners.NopPruner())
        quiet_study.sampler = optuna.samplers.RandomSampler(seed=0)
        survivors = set()
        for _ in range(30):
            trial = quiet_study.ask()
            value = trial.suggest_float("x", 0.0, 1.0)
            trial.report(abs(value - 0.8), 1)
            if abs(value - 0.8) < 0.15:
                survivors.add(trial.number)
            else:
                quiet_study.tell(trial, state=TrialState.PRUNED)
        assert 3 < len(survivors) < 20
        quiet_study.sampler = RungSampler(
            default_sampler(0, 30), survivors if live else frozenset()
        )
        values = [quiet_study.ask().suggest_float("x", 0.0, 1.0) for _ in range(20)]
        return sum(abs(value - 0.8) for value in values) / 20

    assert means(live=True) < 0.2 < means(live=False)


def test_trials_of_others_that_run_stay_what_they_are(quiet_study):
    seen = []

    class Looks(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study, trial):
            seen.append({t.number: t.state for t in study.trials})
            seen.append(
                {
                    t.number: t.state
                    for t in study._get_trials(deepcopy=False, states=(TrialState.PRUNED,))
                }
            )
            return {}

    quiet_study.sampler = optuna.samplers.RandomSampler()
    for value in (1.0, 2.0):
        trial = quiet_study.ask()
        trial.report(value, 1)
    quiet_study.sampler = RungSampler(Looks(), {1})
    quiet_study.ask().suggest_float("x", 0, 1)
    assert seen[0] == {0: TrialState.RUNNING, 1: TrialState.PRUNED, 2: TrialState.RUNNING}
    assert seen[1] == {1: TrialState.PRUNED}
    assert {t.state for t in quiet_study.trials} == {TrialState.RUNNING}


def test_the_default_sampler_goes_on_after_a_stop_as_if_there_had_been_none():
    first, again, other = (default_sampler(3, 20), default_sampler(3, 20), default_sampler(3, 40))
    draws = [sampler._rng.rng.random(4).tolist() for sampler in (first, again, other)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: optuna.samplers.RandomSampler(seed=1),
        lambda: optuna.samplers.QMCSampler(seed=1, warn_independent_sampling=False),
        lambda: optuna.samplers.TPESampler(seed=1),
        lambda: optuna.samplers.BruteForceSampler(seed=1),
        lambda: optuna.samplers.NSGAIISampler(seed=1),
    ],
)
def test_any_sampler_of_optunas_serves(tmp_path, sampler):
    def build(trial):
        trial.suggest_float("x", 0.0, 1.0, step=0.01)
        return task()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made = sampler()
    study = run(tmp_path / "s", sampler=made, build=build, trials=30)
    assert len(study.trials) == 30
    assert study.status == "finished"


def test_a_grid_ends_the_study_when_it_is_exhausted(tmp_path):
    heard = Heard()
    grid = optuna.samplers.GridSampler({"x": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]}, seed=0)
    study = run(tmp_path / "s", Standin(), sampler=grid, trials=30, rungs=2, observer=heard)
    assert study.status == "finished"
    assert {trial.params["x"] for trial in study.trials} == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}
    assert study.best.params["x"] == 0.3
    assert len(study.trials) == 7
    assert any("the sampler has nothing left to give" in text for text in heard.notices)
