"""Which parameters matter: estimated over all trials where they were trained equally far."""

import json
import logging.handlers
import shutil
import sys
from typing import Any, cast

import optuna
import pytest

from study.standin import Standin, bowl, run, task
from volano.api.explore import explore
from volano.running.end_run import write_report
from volano.study import importances as module
from volano.study.importances import importances
from volano.study.observe import StudyObserver
from volano.study.study import Study


def build(trial):
    trial.suggest_float("x", 0.0, 1.0)
    trial.suggest_float("noise", 0.0, 1.0)
    trial.suggest_categorical("width", [64, 128])
    return task()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return run(tmp_path_factory.mktemp("s") / "study", build=build)


@pytest.mark.parametrize("seed", range(2))
def test_what_does_nothing_is_not_important(tmp_path, seed):
    found = importances(run(tmp_path / "s", build=build, seed=seed))
    assert next(iter(found.shares)) == "x"
    assert found.shares["x"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert (found.num_trials, found.share) == (27, pytest.approx(1 / 9))


def test_an_estimate_is_the_same_again_and_changes_nothing(study, monkeypatch):
    said = logging.handlers.BufferingHandler(100)
    optuna.logging.get_verbosity()  # sets the logger up
    monkeypatch.setattr(logging.getLogger("optuna"), "handlers", [said])
    before = study.optuna.get_trials()
    assert importances(study) == importances(Study.open(study.folder))
    assert study.optuna.get_trials() == before
    assert not said.buffer


def test_values_are_those_of_the_furthest_rung_that_all_have_reached(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(module, "_estimated", lambda *found: given.update(found[-1]) or {"x": 1.0})
    whole = run(tmp_path / "whole", build=build, rungs=1)
    assert importances(whole).share == 1.0
    study = run(
        tmp_path / "s",
        Standin(lambda p, step: float("nan") if p["noise"] > 0.9 else bowl(p, step)),
        build=build,
    )
    given.clear()
    found = importances(study)
    finite = {trial.number: trial for trial in study.trials if trial.params["noise"] <= 0.9}
    assert 10 <= len(finite) < 27
    assert given == {number: trial.rungs[0].value for number, trial in finite.items()}
    assert (found.num_trials, found.share) == (len(finite), pytest.approx(1 / 9))


def test_few_trials_or_flat_ones_tell_nothing(tmp_path):
    few = importances(run(tmp_path / "few", build=build, trials=9))
    assert (few.shares, few.num_trials, few.failure) == ({}, 9, "")
    flat = importances(run(tmp_path / "flat", Standin(lambda p, step: 1.0), build=build))
    assert (flat.shares, flat.is_flat, flat.failure) == ({}, True, "")


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_choices_may_be_lists():
    made, choices = optuna.create_study(), cast(Any, [[64], [64, 64]])
    for _ in range(12):
        trial = made.ask()
        trial.suggest_float("noise", 0.0, 1.0)
        trial.suggest_categorical("widths", choices)
        made.tell(trial, state=optuna.trial.TrialState.PRUNED)
    values = {trial.number: float(len(trial.params["widths"])) for trial in made.trials}
    assert module._estimated(made.trials, made.trials[0].distributions, values)["widths"] > 0.8


def test_what_not_all_trials_have_is_left_out_and_said(tmp_path):
    def build(trial):
        trial.suggest_float("x", 0.0, 1.0)
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            trial.suggest_float("only_a", 0.0, 1.0)
        return task()

    study = run(tmp_path / "s", build=build)
    assert importances(study).shares.keys() == {"x", "kind"}
    assert (
        "Left out, for not all of them have it: only_a." in write_report(study.folder).read_text()
    )


def test_nothing_that_is_raised_gets_out(study, monkeypatch):
    def fail(*_):
        raise TypeError("no such choice")

    monkeypatch.setattr(module, "_estimated", fail)
    found = importances(study)
    assert (found.shares, found.failure) == ({}, "TypeError: no such choice")
    page = write_report(study.folder).read_text()
    assert "none could be estimated from the values of 27 trials at 11.1 % of the run" in page
    assert "TypeError: no such choice" in page


def test_a_storage_that_the_folder_names_is_not_opened(tmp_path, monkeypatch, study):
    def opened(*_):
        raise AssertionError("a storage was opened")

    study = Study.open(shutil.copytree(study.folder, tmp_path / "s"))
    expected = importances(study)
    monkeypatch.setattr("volano.study.optuna_storage.load_optuna", opened)
    facts = json.loads(study.path("study.json").read_text())
    facts["storage"] = f"sqlite:///{tmp_path}/made.db"
    study.path("study.json").write_text(json.dumps(facts))
    assert importances(Study.open(study.folder)) == expected
    study.path("journal.log").unlink()  # the values themselves tell enough
    found = importances(Study.open(study.folder))
    assert (next(iter(found.shares)), found.failure) == ("x", "")
    assert found.shares["x"] > 0.8
    write_report(study.folder)
    assert not (tmp_path / "made.db").exists()


@pytest.mark.parametrize(
    ("told", "values", "expected"),
    [
        ({"low": 0.0, "high": 1.0, "log": False, "step": None}, [0.5], "FloatDistribution"),
        ({"low": 1, "high": 9, "log": True, "step": 1}, [3], "IntDistribution"),
        ({"choices": ["a", None]}, [None], "CategoricalDistribution"),
        (None, [1, 4], "IntDistribution"),
        (None, [1e-4, 0.1], "FloatDistribution"),
        (None, [True, False, True], "CategoricalDistribution"),
        (None, [[64], [64, 64]], "CategoricalDistribution"),
    ],
)
@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_a_distribution_is_as_told_or_holds_the_values(told, values, expected):
    found = module._distribution(told, values)
    assert type(found).__name__ == expected
    assert getattr(found, "log", False) == (told or {}).get("log", values == [1e-4, 0.1])
    for value in values:
        found.to_internal_repr(value)


def test_a_page_that_cannot_be_written_is_a_notice(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("by a page")

    heard = []
    # The door has its function.
    monkeypatch.setattr(sys.modules["volano.api.explore"], "write_study_report", fail)

    class Ears(StudyObserver):
        def on_notice(self, text):
            heard.append(text)

    study = explore(
        "study.builds:digits_mlp",
        3,
        rungs=1,
        out=tmp_path / "s",
        observer=Ears(),
        device="cpu",
        nproc=1,
    )
    assert study.status == "finished"
    assert "the report could not be written: ZeroDivisionError: by a page" in heard
