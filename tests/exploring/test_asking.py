"""Building trials: what fails alone, and what ends the study."""

from __future__ import annotations

import optuna
import pytest

from exploring.standin import Standin, run, task
from volano.errors import ExploreError, UsageError


def test_a_build_that_raises_fails_its_trial_alone_and_the_reason_is_kept(tmp_path):
    def build(trial):
        if trial.suggest_float("x", 0.0, 1.0) > 0.6:
            raise ValueError("no such network\nand more")
        return task()

    workers = Standin()
    study = run(tmp_path / "s", workers, build=build)
    failed = [trial for trial in study.trials if trial.params["x"] > 0.6]
    assert failed
    for trial in failed:
        assert (trial.state, trial.reason, trial.rungs) == ("failed", "ValueError: no such network", ())
        frozen = study.optuna.trials[trial.number]
        assert (frozen.state.name, frozen.user_attrs["reason"]) == ("FAIL", "ValueError: no such network")
    trained = {trial.number for _, a in workers.assignments for trial in a.trials}
    assert not trained & {trial.number for trial in failed}
    assert len(study.trials) == 27


def test_a_build_that_prunes_its_trial_is_no_failure(tmp_path):
    def build(trial):
        if trial.suggest_float("x", 0.0, 1.0) > 0.6:
            raise optuna.TrialPruned("too large")
        return task()

    study = run(tmp_path / "s", build=build)
    pruned = [trial for trial in study.trials if trial.params["x"] > 0.6]
    assert pruned
    assert {(trial.state, trial.reason) for trial in pruned} == {("pruned", "pruned while it was built: too large")}
    assert {study.optuna.trials[trial.number].state.name for trial in pruned} == {"PRUNED"}


def test_ten_failures_from_the_first_on_end_the_study_with_the_reason(tmp_path):
    built = []

    def build(trial):
        built.append(trial.suggest_float("x", 0.0, 1.0))
        raise FileNotFoundError("digits.npz")

    with pytest.raises(ExploreError, match=r"each of the first 10 trials, the last: FileNotFoundError: digits\.npz"):
        run(tmp_path / "s", build=build, trials=81)
    assert len(built) == 10


def test_where_fewer_trials_than_ten_all_fail_the_reason_is_told_too(tmp_path):
    def build(trial):
        trial.suggest_float("x", 0.0, 1.0)
        raise FileNotFoundError("digits.npz")

    with pytest.raises(ExploreError, match=r"none of 3; the last failure: FileNotFoundError: digits\.npz"):
        run(tmp_path / "s", build=build, trials=3)


def test_a_build_that_suggests_nothing_is_refused(tmp_path):
    with pytest.raises(ExploreError, match=r"build\(trial\) suggests at least one parameter; got none"):
        run(tmp_path / "s", build=lambda trial: task())


def test_what_is_no_task_or_has_nothing_to_be_compared_by_is_refused(tmp_path):
    def nothing(trial):
        trial.suggest_float("x", 0.0, 1.0)

    def blind(trial):
        trial.suggest_float("x", 0.0, 1.0)
        return task(valid=None)

    with pytest.raises(UsageError, match=r"build\(trial\) returns a volano\.Task; got NoneType"):
        run(tmp_path / "s", build=nothing)
    with pytest.raises(UsageError, match="The tasks of a study have a validation set"):
        run(tmp_path / "t", build=blind)


def test_a_parameter_whose_range_changes_within_a_study_is_refused(tmp_path):
    def build(trial):
        trial.suggest_float("x", 0.0, 1.0 + trial.number)
        return task()

    with pytest.raises(UsageError, match="'x' was .*high=1.0.* and is .*high=2.0"):
        run(tmp_path / "s", build=build)


def test_a_space_with_conditions_is_fine(tmp_path):
    def build(trial):
        if trial.suggest_categorical("kind", ["sgd", "adam"]) == "adam":
            trial.suggest_float("beta", 0.0, 1.0)
        trial.suggest_float("x", 0.0, 1.0)
        return task()

    study = run(tmp_path / "s", build=build, trials=40)
    assert study.status == "finished"
    assert all(("beta" in trial.params) == (trial.params["kind"] == "adam") for trial in study.trials)
