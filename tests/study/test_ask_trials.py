"""Building trials: what fails alone, and what ends the study."""

from __future__ import annotations

import optuna
import pytest

from study.standin import Heard, Standin, run, task
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
        assert (trial.state, trial.reason, trial.rungs) == (
            "failed",
            "ValueError: no such network",
            (),
        )
        frozen = study.optuna.trials[trial.number]
        assert (frozen.state.name, frozen.user_attrs["reason"]) == (
            "FAIL",
            "ValueError: no such network",
        )
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
    assert {(trial.state, trial.reason) for trial in pruned} == {
        ("pruned", "pruned while it was built: too large")
    }
    assert {study.optuna.trials[trial.number].state.name for trial in pruned} == {"PRUNED"}


def test_ten_failures_from_the_first_on_end_the_study_with_the_reason(tmp_path):
    built = []

    def build(trial):
        built.append(trial.suggest_float("x", 0.0, 1.0))
        raise FileNotFoundError("digits.npz")

    with pytest.raises(
        ExploreError, match=r"each of the first 10 trials, the last: FileNotFoundError: digits\.npz"
    ):
        run(tmp_path / "s", build=build, trials=81)
    assert len(built) == 10


def test_where_fewer_trials_than_ten_all_fail_the_reason_is_told_too(tmp_path):
    def build(trial):
        trial.suggest_float("x", 0.0, 1.0)
        raise FileNotFoundError("digits.npz")

    with pytest.raises(
        ExploreError, match=r"none of 3; the last failure: FileNotFoundError: digits\.npz"
    ):
        run(tmp_path / "s", build=build, trials=3)


def test_a_build_that_suggests_nothing_is_refused(tmp_path):
    with pytest.raises(
        ExploreError, match=r"build\(trial\) must suggest at least one parameter; got none"
    ):
        run(tmp_path / "s", build=lambda trial: task())


def test_what_is_no_task_or_has_nothing_to_be_compared_by_is_refused(tmp_path):
    def nothing(trial):
        trial.suggest_float("x", 0.0, 1.0)

    def blind(trial):
        trial.suggest_float("x", 0.0, 1.0)
        return task(valid=None)

    with pytest.raises(
        UsageError, match=r"build\(trial\) must return a volano\.Task; got NoneType"
    ):
        run(tmp_path / "s", build=nothing)
    with pytest.raises(UsageError, match="The tasks of a study must have a validation set"):
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
    assert all(
        ("beta" in trial.params) == (trial.params["kind"] == "adam") for trial in study.trials
    )


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
@pytest.mark.parametrize("choices", [[(64,), (64, 64)], [[64], [64, 64]]])
def test_choices_that_a_journal_gives_back_as_others_are_refused(tmp_path, choices):
    def build(trial):
        trial.suggest_categorical("widths", choices)
        return task()

    with pytest.raises(
        UsageError, match="numbers, texts, True, False or None; got .64.* of 'widths'"
    ):
        run(tmp_path / "s", build=build)


def of_five(trial):
    trial.suggest_float("x", 0.0, 1.0, step=0.25)
    return task()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_that_tries_all_is_not_asked_for_more(tmp_path):
    heard = Heard()
    study = run(
        tmp_path / "s",
        build=of_five,
        eta=2,
        sampler=optuna.samplers.BruteForceSampler(seed=0),
        observer=heard,
    )
    trained = [trial.params["x"] for trial in study.trials if trial.rungs]
    assert sorted(trained) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert any("nothing left to give" in text for text in heard.notices)


def test_a_grid_that_was_tried_is_not_tried_again(tmp_path):
    def grid():
        return optuna.samplers.GridSampler({"x": [0.0, 0.25, 0.5, 0.75]}, seed=0)

    assert len(run(tmp_path / "s", build=of_five, trials=4, sampler=grid()).trials) == 4
    study = run(tmp_path / "s", build=of_five, trials=9, sampler=grid(), resume=True)
    assert len(study.trials) == 4
    assert study.facts["notices"] == ["the sampler has nothing left to give after 4 trials"]
