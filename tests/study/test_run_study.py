"""Whole studies, with workers whose trials show a known function at once."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import signal

import optuna
import pytest
import torch

from study.standin import NUM_STEPS, Heard, Standin, bowl, run, task
from volano.errors import CheckpointError, ExploreError, UsageError
from volano.study.study import Study

SPACE = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


def lines(study, name="trials.jsonl"):
    return [json.loads(line) for line in (study.folder / name).read_text().splitlines()]


def told(study):
    """What Optuna knows: parameters, state, values at rungs and the reason of each trial."""
    return [
        (t.params, t.state.name, t.intermediate_values, t.user_attrs.get("reason")) for t in study.optuna.get_trials()
    ]


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
    assert study.best.value == pytest.approx(bowl(study.best.params, NUM_STEPS)) == study.optuna.best_value
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


def test_optuna_is_told_what_happened(tmp_path):
    study = run(tmp_path / "s", trials=27)
    by_number = {trial.number: trial for trial in study.optuna.get_trials()}
    for trial in study.trials:
        frozen = by_number[trial.number]
        assert frozen.state.name == trial.state.upper()
        assert frozen.params == trial.params
        assert frozen.intermediate_values == {rung.rung + 1: rung.value for rung in trial.rungs}
        assert frozen.value == trial.value
        if trial.state == "pruned":
            assert "is not among the best 1/3 of" in frozen.user_attrs["reason"]
            assert frozen.user_attrs["reason"] == trial.reason


def test_the_study_can_be_opened_again(tmp_path):
    study = run(tmp_path / "s")
    again = Study.open(tmp_path / "s")
    assert again.trials == study.trials
    assert again.best == study.best
    assert again.trial(3) == study.trials[3]
    assert told(again) == told(study)
    assert again.path("report.html") == tmp_path / "s" / "report.html"
    with pytest.raises(ExploreError, match="A trial is named by its number; got 99"):
        again.trial(99)
    with pytest.raises(UsageError, match=r"A study's folder holds study\.json"):
        Study.open(tmp_path)


def test_the_greatest_value_wins_where_it_is_maximized(tmp_path):
    study = run(tmp_path / "s", metric="accuracy", direction="maximize")
    assert study.best.value == max(t.value for t in study.trials if t.state == "complete")
    assert abs(study.best.params["x"] - 0.3) < 0.05


@pytest.mark.parametrize("num_workers", [2, 3])
def test_the_order_in_which_workers_answer_changes_nothing(tmp_path, num_workers):
    first, last = (
        run(tmp_path / name, Standin(num_workers=num_workers, order=order), quorum=1.0)
        for name, order in (("a", lambda busy: busy[0]), ("b", lambda busy: busy[-1]))
    )
    assert told(first) == told(last)


def test_several_workers_share_a_cohort_and_keep_their_trials(tmp_path):
    workers = Standin(num_workers=2)
    run(tmp_path / "s", workers, trials=9, rungs=2)
    (_, one), (_, other), *later = workers.assignments
    assert sorted(len(a.trials) for a in (one, other)) == [4, 5]
    homes = {trial.number: worker for worker, a in workers.assignments[:2] for trial in a.trials}
    moved = [trial.number for worker, a in later for trial in a.trials if homes[trial.number] != worker]
    assert len(moved) <= 1  # three survivors on two workers: at most one in excess


def test_workers_know_how_much_is_to_come(tmp_path):
    workers = Standin()
    run(tmp_path / "s", workers)
    after = [assignment.runs_after for _, assignment in workers.assignments]
    # Ten of 27 trials to the first of three rungs, a ninth of a run: the others come, and then thirds and ninths.
    assert after[0] == pytest.approx(17 / 9 + 27 / 3 * (2 / 9) + 27 / 9 * (2 / 3))
    assert all(late < early for early, late in itertools.pairwise(after))
    assert after[-1] == pytest.approx(0.0)


def test_a_rung_waits_for_its_quorum_and_decides_about_latecomers_after_it(tmp_path):
    # The third worker answers only when nobody else has work.
    heard = Heard()
    workers = Standin(num_workers=3, order=lambda busy: min(busy))
    study = run(tmp_path / "s", workers, trials=9, rungs=2, quorum=2 / 3, observer=heard)
    assert [len(d.values) for d in heard.decisions][:2] == [6, 2]  # two of three packs, then their survivors
    assert sum(len(d.values) for d in heard.decisions if d.rung == 0) == 9
    assert study.status == "finished"


def test_a_loss_that_is_no_number_is_pruned_with_the_reason(tmp_path):
    study = run(tmp_path / "s", Standin(lambda params, step: math.nan if params["x"] > 0.5 else params["x"]))
    lost = [trial for trial in study.trials if trial.params["x"] > 0.5]
    assert lost
    for trial in lost:
        assert (trial.state, trial.reason) == ("pruned", "loss is no finite number at rung 1")
        assert math.isnan(trial.value)
        assert study.optuna.trials[trial.number].state.name == "PRUNED"
    assert study.best.params["x"] < 0.5


def test_a_trial_that_fails_while_it_trains_fails_alone(tmp_path):
    def shows(params, step):
        if params["x"] > 0.7:
            raise ZeroDivisionError("too far out")
        return bowl(params, step)

    heard = Heard()
    study = run(tmp_path / "s", Standin(shows), observer=heard)
    failed = [trial for trial in study.trials if trial.params["x"] > 0.7]
    assert failed
    assert heard.notices == [f"trial {failed[0].number} failed: ZeroDivisionError: too far out"]  # said once
    assert {(t.state, t.reason) for t in failed} == {("failed", "ZeroDivisionError: too far out")}
    assert {study.optuna.trials[t.number].state.name for t in failed} == {"FAIL"}
    assert study.optuna.trials[failed[0].number].user_attrs["reason"] == "ZeroDivisionError: too far out"
    assert study.status == "finished"


def test_where_every_trial_fails_the_study_ends_with_the_reason(tmp_path):
    def shows(params, step):
        raise ZeroDivisionError("always")

    workers = Standin(shows)
    with pytest.raises(ExploreError, match="none of 27; the last failure: ZeroDivisionError: always"):
        run(tmp_path / "s", workers, trials=81)
    assert len(workers.assignments) == 1
    assert Study.open(tmp_path / "s").status == "failed"
    with pytest.raises(ExploreError, match="A study's best trial has a value that is a number"):
        Study.open(tmp_path / "s").best  # noqa: B018


def test_a_metric_that_the_evaluation_lacks_is_refused_with_those_it_has(tmp_path):
    with pytest.raises(ExploreError, match="got 'f1', and the evaluation gives accuracy, loss"):
        run(tmp_path / "s", metric="f1")


def test_trials_are_compared_by_parameter_values_that_json_cannot_hold_too(tmp_path):
    def choosing(trial):
        trial.suggest_categorical("kind", ["a", None, 3, True])
        trial.suggest_int("depth", 1, 4)
        return task()

    workers = Standin(lambda params, step: float(params["depth"]))
    study = run(tmp_path / "s", workers, build=choosing, trials=9)
    assert {type(t.params["kind"]) for _, a in workers.assignments for t in a.trials} <= {str, type(None), int, bool}
    assert study.best.params["depth"] == 1


# ---- a lost worker


def test_trials_of_a_lost_worker_start_again_from_their_last_rung_and_the_study_ends_as_without_the_loss(tmp_path):
    heard, losses = Heard(), []

    def lose(worker, assignment):
        if worker == 1 and assignment.share > 0.2:
            losses.append(assignment)
        return losses[-1:] == [assignment]

    workers = Standin(num_workers=2, lose=lose)
    study = run(tmp_path / "s", workers, trials=27, observer=heard)
    assert told(study) == told(run(tmp_path / "alone", Standin(), trials=27))
    lost = next(event for event in lines(study) if event["event"] == "lost")
    assert (lost["worker"], lost["reason"]) == (1, "it was killed")
    again = [a for w, a in workers.assignments if w == 0 and a.share == 1 / 3]
    starts = {trial.number: trial.state["step"] for a in again for trial in a.trials}
    assert starts.items() >= dict.fromkeys(lost["trials"], 9).items()
    assert any("worker 1 was lost (it was killed) with " in text for text in heard.notices)
    assert {workers.steps[t.number] for t in study.trials if t.state == "complete"} == {NUM_STEPS}


def test_a_worker_that_is_lost_once_works_again(tmp_path):
    losses = []

    def lose(worker, assignment):
        losses.append(worker)
        return len(losses) == 1

    study = run(tmp_path / "s", Standin(lose=lose))
    assert study.status == "finished"
    assert told(study) == told(run(tmp_path / "alone"))


def test_where_all_workers_are_lost_the_study_says_how_it_goes_on(tmp_path):
    workers = Standin(num_workers=2, lose=lambda worker, assignment: assignment.share > 0.2)
    with pytest.raises(ExploreError, match=r"got none: each was lost 6 times in a row.*resume=True"):
        run(tmp_path / "s", workers)
    stopped = Study.open(tmp_path / "s")
    assert stopped.status == "failed"
    assert not [trial for trial in stopped.trials if trial.state == "failed"]  # it was none of theirs
    assert told(run(tmp_path / "s", resume=True)) == told(run(tmp_path / "alone"))


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_a_trial_that_ends_its_worker_each_time_is_found_out_and_fails_alone(tmp_path, num_workers):
    def lose(worker, assignment):
        return any(trial.number == 2 for trial in assignment.trials)

    study = run(tmp_path / "s", Standin(num_workers=num_workers, lose=lose), trials=81)
    assert [trial.number for trial in study.trials if trial.state == "failed"] == [2]
    assert study.trials[2].reason == "its worker was lost with it again and again: it was killed"
    assert study.status == "finished"


# ---- stopped and resumed


class Killed(BaseException):
    """As abrupt as SIGKILL, as far as the driver can tell."""


def interrupted_before(number):
    def before(num_assignments):
        if num_assignments == number:
            os.kill(os.getpid(), signal.SIGINT)

    return before


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


@pytest.mark.parametrize("method", ["save", "asked", "shown", "ended", "decided"])
@pytest.mark.parametrize("call", [1, 3, 5])
def test_a_study_killed_anywhere_goes_on_and_tells_nothing_twice(tmp_path, monkeypatch, method, call):
    from volano.study.trial_ledger import TrialLedger

    calls, real = [], getattr(TrialLedger, method)

    def dies(self, *arguments, **fields):
        calls.append(method)
        if len(calls) == call:
            raise Killed
        return real(self, *arguments, **fields)

    monkeypatch.setattr(TrialLedger, method, dies)
    with pytest.raises(Killed):
        run(tmp_path / "s")
    monkeypatch.undo()
    events = (tmp_path / "s" / "trials.jsonl").exists() and (tmp_path / "s" / "trials.jsonl").read_text()
    study = run(tmp_path / "s", resume=bool(events))
    assert study.status == "finished"
    whole = run(tmp_path / "whole")
    assert told(study) == told(whole)
    assert [(t.number, t.state, t.curve, t.reason) for t in study.trials] == [
        (t.number, t.state, t.curve, t.reason) for t in whole.trials
    ]
    ends = [event["trial"] for event in lines(study) if event["event"] == "ended"]
    assert sorted(ends) == list(range(27))


def test_a_line_that_a_crash_has_cut_short_takes_no_other_with_it(tmp_path):
    run(tmp_path / "s", Standin(before=interrupted_before(4)))
    events = tmp_path / "s" / "trials.jsonl"
    events.write_bytes(events.read_bytes()[:-30])
    study = run(tmp_path / "s", resume=True)
    assert study.status == "finished"
    damaged = [line for line in events.read_bytes().splitlines() if not line.endswith(b"}")]
    assert len(damaged) == 1
    assert len(damaged[0]) < 200  # nothing has grown together with it
    assert len(study.trials) == len(study.optuna.trials) == 27


def test_a_study_whose_journal_is_gone_does_not_start_over(tmp_path):
    run(tmp_path / "s", Standin(before=interrupted_before(3)))
    (tmp_path / "s" / "journal.log").unlink()
    with pytest.raises(CheckpointError, match="goes on from the journal in its folder; got no journal.log"):
        run(tmp_path / "s", resume=True)


def test_runs_of_another_length_than_before_are_refused(tmp_path):
    run(tmp_path / "s", Standin(before=interrupted_before(2)))

    def shorter(trial):
        trial.suggest_float("x", 0.0, 1.0)
        return task(duration="40st")

    with pytest.raises(UsageError, match="runs of that length; got 11% of a run was step 9 and is step 5"):
        run(tmp_path / "s", build=shorter, resume=True)


def test_another_sampler_than_before_is_told(tmp_path):
    run(tmp_path / "s", Standin(before=interrupted_before(2)), sampler=optuna.samplers.RandomSampler(seed=1))
    heard = Heard()
    study = run(tmp_path / "s", resume=True, observer=heard)
    assert heard.notices[0] == "it goes on with TPESampler; sampler= was RandomSampler when it was started"
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
    with pytest.raises(UsageError, match="A study that goes on has trials left; got .* finished after 9 trials"):
        run(tmp_path / "s", trials=9, resume=True)
    study = run(tmp_path / "s", trials=20, resume=True)
    assert (len(study.trials), study.status) == (20, "finished")
    assert study.settings["trials"] == 20


def test_a_folder_that_holds_a_study_is_not_overwritten(tmp_path):
    run(tmp_path / "s", trials=9)
    with pytest.raises(UsageError, match="A study starts in a folder of its own; got .*resume=True"):
        run(tmp_path / "s", trials=9)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="starts in a folder of its own"):
        run(tmp_path / "other", trials=9)


def test_another_space_or_other_settings_are_refused_with_the_differences_and_change_nothing(tmp_path):
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
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir() if path.is_file()} == before
    assert run(tmp_path / "s", resume=True).status == "finished"


def test_two_processes_do_not_work_on_one_study(tmp_path):
    from volano.record.study_folder import StudyFolder

    run(tmp_path / "s", Standin(before=interrupted_before(2)))
    with StudyFolder.open(tmp_path / "s").held(), pytest.raises(UsageError, match="One process at a time"):
        run(tmp_path / "s", resume=True)


# ---- time


class Clock:
    """Time that passes when a round is trained."""

    def __init__(self, monkeypatch, seconds):
        self.now = 0.0
        monkeypatch.setattr("volano.study.study_loop.time.perf_counter", lambda: self.now)
        self.seconds = seconds

    def __call__(self, num_assignments):
        self.now += self.seconds


class Timed(Standin):
    """Takes a hundredth of a second for each step of each trial."""

    def __init__(self, clock, *, limit):
        super().__init__()
        self.clock, self.limit = clock, limit

    def submit(self, worker, assignment):
        assert self.clock.now <= self.limit  # nothing begins after the minutes
        steps = [round(NUM_STEPS * assignment.share) - (t.state or {"step": 0})["step"] for t in assignment.trials]
        self.clock.now += 0.01 * sum(steps)
        super().submit(worker, assignment)

    def next_finished(self, timeout=None):
        worker, report = super().next_finished(timeout)
        packs = [dataclasses.replace(facts, startup_seconds=0.0) for facts in report.packs]
        return worker, dataclasses.replace(report, packs=tuple(packs))


def test_no_trial_begins_that_could_not_end_and_the_best_is_told(tmp_path, monkeypatch):
    heard = Heard()
    clock = Clock(monkeypatch, 0.0)
    study = run(tmp_path / "s", Timed(clock, limit=4.8), trials=81, minutes=0.08, observer=heard)
    # 27 trials and what is left of them to the end: 2.4 s. 81 would take 7.3.
    assert study.status == "finished"
    assert 27 <= len(study.trials) < 81
    assert heard.notices[-1] == f"it ended before all trials were asked for: {study.reason}"
    assert study.best.share == 1.0
    assert f"{81 - len(study.trials)} trials" in study.reason


def test_making_programs_once_is_not_taken_for_the_pace(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 0.0)

    class Starting(Timed):
        """Takes two seconds more at first, and says so."""

        def next_finished(self, timeout=None):
            worker, report = super().next_finished(timeout)
            if report.assignment == 0:
                clock.now += 2.0
                packs = [dataclasses.replace(facts, startup_seconds=2.0) for facts in report.packs]
                report = dataclasses.replace(report, packs=tuple(packs))
            return worker, report

    # 7.3 s of training and 2 of start-up; at the first round's pace the rest would take 27 times 2.8.
    study = run(tmp_path / "s", Starting(clock, limit=18.0), trials=81, minutes=0.3)
    assert len(study.trials) == 81


def test_the_rung_under_way_is_finished_when_the_time_is_over_and_more_time_goes_on(tmp_path, monkeypatch):
    heard = Heard()
    clock = Clock(monkeypatch, 50.0)
    study = run(tmp_path / "s", Standin(before=clock), minutes=1.5, observer=heard)
    assert (study.status, study.reason) == ("stopped", "its 1.5 minutes were over; 17 trials were not asked for")
    assert clock.now == 100.0
    assert study.best.share < 1.0
    assert "it goes on with resume=True" in heard.notices[-1]
    monkeypatch.undo()
    assert run(tmp_path / "s", resume=True).status == "finished"


def test_an_optuna_study_keeps_its_sampler(tmp_path):
    mine = optuna.samplers.RandomSampler(seed=1)
    given = optuna.create_study(sampler=mine, pruner=optuna.pruners.NopPruner())
    study = run(tmp_path / "s", storage=given, trials=9)
    assert study.settings["sampler"] == "RandomSampler"
    alone = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert [trial.params["x"] for trial in study.trials] == [alone.ask(SPACE).params["x"] for _ in range(9)]
    assert study.optuna is given
    assert given.sampler is mine
    assert len(given.trials) == 9
