"""Whole studies, with workers whose trials show a known function at once."""

from __future__ import annotations

import optuna
import pytest
import torch

from study.standin import (
    NUM_STEPS,
    Heard,
    Standin,
    bowl,
    interrupted_before,
    lines,
    run,
    task,
    told,
)
from volano.errors import CheckpointError, ExploreError, UsageError

SPACE = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


def test_a_study_from_its_first_trial_to_its_folder(tmp_path):
    heard, workers = Heard(), Standin()
    study = run(tmp_path / "s", workers, trials=81, observer=heard)
    assert (study.status, study.reason, len(study.trials)) == ("finished", None, 81)
    # One cohort after another to the first rung, then survivors together.
    assert [(a.share, len(a.trials)) for _, a in workers.assignments] == [
        (1 / 27, 27), (1 / 27, 27), (1 / 27, 27), (1 / 9, 27), (1 / 3, 9), (1.0, 3)
    ]  # fmt: skip
    best = min((t for t in study.trials if t.state == "complete"), key=lambda t: t.value)
    assert study.best.number == best.number == study.optuna.best_trial.number
    assert (
        study.best.value
        == pytest.approx(bowl(study.best.params, NUM_STEPS))
        == study.optuna.best_value
    )
    assert best.curve == tuple((step, bowl(best.params, step)) for step in (3, 9, 27, 81))
    # Each goes on from where it stood: a survivor makes the steps of its whole run, no more.
    assert {workers.steps[t.number] for t in study.trials if t.state == "complete"} == {NUM_STEPS}
    assert {workers.steps[t.number] for t in study.trials if len(t.rungs) == 1} == {3}
    assert not list((study.folder / "states").iterdir())
    assert sorted(path.name for path in study.folder.iterdir()) == [
        "journal.log", "packs.jsonl", "states", "study.json", "trials.jsonl"
    ]  # fmt: skip
    assert lines(study, "packs.jsonl")[0]["gain"] == pytest.approx(0.01 * NUM_STEPS / (0.5 - 0.1))
    assert workers.is_closed
    assert heard.ends == [study]
    assert heard.infos[0].shares == (1 / 27, 1 / 9, 1 / 3, 1.0)
    assert heard.summaries[-1].num_complete == 3
    assert heard.summaries[-1].seconds_left == 0.0
    assert heard.notices == []


def test_the_greatest_value_wins_where_it_is_maximized(tmp_path):
    study = run(tmp_path / "s", metric="accuracy", direction="maximize")
    assert study.best.value == max(t.value for t in study.trials if t.state == "complete")
    assert abs(study.best.params["x"] - 0.3) < 0.05


def test_a_metric_that_the_evaluation_lacks_is_refused_with_those_it_has(tmp_path):
    with pytest.raises(ExploreError, match="got 'f1', and the evaluation gives accuracy, loss"):
        run(tmp_path / "s", metric="f1")


# ---- a lost worker


# ---- stopped and resumed


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_study_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, number):
    heard = Heard()
    stopped = run(tmp_path / "s", Standin(before=interrupted_before(number)), observer=heard)
    assert stopped.status == "stopped"
    assert "resume=True" in heard.notices[-1]
    assert str(tmp_path / "s") in heard.notices[-1]
    workers = Standin()
    study = run(tmp_path / "s", workers, resume=True)
    assert study.status == "finished"
    alone = Standin()
    whole = run(tmp_path / "whole", alone)
    assert told(study) == told(whole)
    strip = [(t.number, t.params, t.state, t.rungs, t.reason) for t in study.trials]
    assert strip == [(t.number, t.params, t.state, t.rungs, t.reason) for t in whole.trials]
    assert sum(workers.steps.values()) < sum(alone.steps.values()) or number == 1


def test_a_study_whose_journal_is_gone_does_not_start_over(tmp_path):
    run(tmp_path / "s", Standin(before=interrupted_before(3)))
    (tmp_path / "s" / "journal.log").unlink()
    with pytest.raises(
        CheckpointError, match="must have its journal in its folder; got no journal.log"
    ):
        run(tmp_path / "s", resume=True)


def test_runs_of_another_length_than_before_are_refused(tmp_path):
    run(tmp_path / "s", Standin(before=interrupted_before(2)))

    def shorter(trial):
        trial.suggest_float("x", 0.0, 1.0)
        return task(duration="40st")

    with pytest.raises(
        UsageError, match="the length of its runs; got 11% of a run was step 9 and is step 5"
    ):
        run(tmp_path / "s", build=shorter, resume=True)


def test_another_sampler_than_before_is_told(tmp_path):
    run(
        tmp_path / "s",
        Standin(before=interrupted_before(2)),
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    heard = Heard()
    study = run(tmp_path / "s", resume=True, observer=heard)
    assert (
        heard.notices[0]
        == "it continues with TPESampler; `sampler` was RandomSampler when it was started"
    )
    assert study.settings["sampler"] == "TPESampler"


def test_a_state_that_is_damaged_starts_its_trial_again(tmp_path):
    run(tmp_path / "s", Standin(before=interrupted_before(4)))
    states = sorted((tmp_path / "s" / "states").iterdir())
    assert states
    assert torch.load(states[-1], weights_only=True)["step"] in (9, 27)
    states[0].write_bytes(b"torn")
    heard, workers = Heard(), Standin()
    study = run(tmp_path / "s", workers, resume=True, observer=heard)
    assert any("states of 1 trials are missing or damaged" in text for text in heard.notices)
    assert told(study) == told(run(tmp_path / "whole"))


def test_a_finished_study_is_not_resumed_but_for_more_trials(tmp_path):
    run(tmp_path / "s", trials=9)
    with pytest.raises(
        UsageError, match="A study to resume must have trials left; got .* finished after 9 trials"
    ):
        run(tmp_path / "s", trials=9, resume=True)
    study = run(tmp_path / "s", trials=20, resume=True)
    assert (len(study.trials), study.status) == (20, "finished")
    assert study.settings["trials"] == 20


def test_a_folder_that_holds_a_study_is_not_overwritten(tmp_path):
    run(tmp_path / "s", trials=9)
    with pytest.raises(
        UsageError, match="A study must start in a folder of its own; got .*`resume`"
    ):
        run(tmp_path / "s", trials=9)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="must start in a folder of its own"):
        run(tmp_path / "other", trials=9)


def test_another_space_or_other_settings_are_refused_with_the_differences_and_change_nothing(
    tmp_path,
):
    run(tmp_path / "s", Standin(before=interrupted_before(2)))
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir() if path.is_file()}

    def wider(trial):
        trial.suggest_float("x", 0.0, 2.0)
        return task()

    def renamed(trial):
        trial.suggest_float("y", 0.0, 1.0)
        return task()

    def more(trial):
        trial.suggest_float("x", 0.0, 1.0)
        trial.suggest_int("depth", 1, 3)
        return task()

    for other, difference in (
        (wider, "'x' was FloatDistribution(high=1.0.*and is FloatDistribution(high=2.0"),
        (renamed, "new: 'y'"),
        (more, "new: 'depth'"),
        (lambda trial: task(), "'x' is suggested no more"),
    ):
        with pytest.raises(UsageError, match=difference.replace("(", r"\(")):
            run(tmp_path / "s", build=other, resume=True)
    with pytest.raises(UsageError, match="eta was 3 and is 2"):
        run(tmp_path / "s", eta=2, resume=True)
    with pytest.raises(UsageError, match="metric was 'loss' and is 'accuracy'"):
        run(tmp_path / "s", metric="accuracy", resume=True)
    assert {
        path.name: path.read_bytes() for path in (tmp_path / "s").iterdir() if path.is_file()
    } == before
    assert run(tmp_path / "s", resume=True).status == "finished"


def test_two_processes_do_not_work_on_one_study(tmp_path):
    from volano.record.study_folder import StudyFolder

    run(tmp_path / "s", Standin(before=interrupted_before(2)))
    with (
        StudyFolder.open(tmp_path / "s").held(),
        pytest.raises(UsageError, match="Only one process at a time"),
    ):
        run(tmp_path / "s", resume=True)


# ---- time


def test_an_optuna_study_keeps_its_sampler(tmp_path):
    mine = optuna.samplers.RandomSampler(seed=1)
    given = optuna.create_study(sampler=mine, pruner=optuna.pruners.NopPruner())
    study = run(tmp_path / "s", storage=given, trials=9)
    assert study.settings["sampler"] == "RandomSampler"
    alone = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert [trial.params["x"] for trial in study.trials] == [
        alone.ask(SPACE).params["x"] for _ in range(9)
    ]
    assert study.optuna is given
    assert given.sampler is mine
    assert len(given.trials) == 9
