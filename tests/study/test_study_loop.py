"""Trials go to workers, rungs decide, lost workers cost nothing but time, and the time is kept."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from study.standin import NUM_STEPS, Heard, Standin, bowl, lines, run, told
from volano.errors import ExploreError
from volano.study.study import Study


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
    moved = [
        trial.number for worker, a in later for trial in a.trials if homes[trial.number] != worker
    ]
    assert len(moved) <= 1  # three survivors on two workers: at most one in excess


def test_workers_know_how_much_is_to_come(tmp_path):
    workers = Standin()
    run(tmp_path / "s", workers)
    after = [assignment.runs_after for _, assignment in workers.assignments]
    # Ten of 27 trials to the first of three rungs, a ninth of a run: the others come, and then
    # thirds and ninths.
    assert after[0] == pytest.approx(17 / 9 + 27 / 3 * (2 / 9) + 27 / 9 * (2 / 3))
    assert all(late < early for early, late in itertools.pairwise(after))
    assert after[-1] == pytest.approx(0.0)


def test_a_rung_waits_for_its_quorum_and_decides_about_latecomers_after_it(tmp_path):
    # The third worker answers only when nobody else has work.
    heard = Heard()
    workers = Standin(num_workers=3, order=lambda busy: min(busy))
    study = run(tmp_path / "s", workers, trials=9, rungs=2, quorum=2 / 3, observer=heard)
    # Two of three packs, then their survivors.
    assert [len(d.values) for d in heard.decisions][:2] == [6, 2]
    assert sum(len(d.values) for d in heard.decisions if d.rung == 0) == 9
    assert study.status == "finished"


def test_a_loss_that_is_no_number_is_pruned_with_the_reason(tmp_path):
    study = run(
        tmp_path / "s", Standin(lambda params, step: math.nan if params["x"] > 0.5 else params["x"])
    )
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
    # Said once.
    assert heard.notices == [f"trial {failed[0].number} failed: ZeroDivisionError: too far out"]
    assert {(t.state, t.reason) for t in failed} == {("failed", "ZeroDivisionError: too far out")}
    assert {study.optuna.trials[t.number].state.name for t in failed} == {"FAIL"}
    assert (
        study.optuna.trials[failed[0].number].user_attrs["reason"]
        == "ZeroDivisionError: too far out"
    )
    assert study.status == "finished"


def test_where_every_trial_fails_the_study_ends_with_the_reason(tmp_path):
    def shows(params, step):
        raise ZeroDivisionError("always")

    workers = Standin(shows)
    with pytest.raises(
        ExploreError, match="none of 27; the last failure: ZeroDivisionError: always"
    ):
        run(tmp_path / "s", workers, trials=81)
    assert len(workers.assignments) == 1
    assert Study.open(tmp_path / "s").status == "failed"
    with pytest.raises(
        ExploreError, match="A study's best trial must have a value that is a number"
    ):
        Study.open(tmp_path / "s").best  # noqa: B018


def test_trials_of_a_lost_worker_start_again_from_their_last_rung_and_nothing_is_lost(tmp_path):
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
    with pytest.raises(ExploreError, match=r"got none: each was lost 6 times in a row.*`resume`"):
        run(tmp_path / "s", workers)
    stopped = Study.open(tmp_path / "s")
    assert stopped.status == "failed"
    # It was none of theirs.
    assert not [trial for trial in stopped.trials if trial.state == "failed"]
    assert told(run(tmp_path / "s", resume=True)) == told(run(tmp_path / "alone"))


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_a_trial_that_ends_its_worker_each_time_is_found_out_and_fails_alone(tmp_path, num_workers):
    def lose(worker, assignment):
        return any(trial.number == 2 for trial in assignment.trials)

    study = run(tmp_path / "s", Standin(num_workers=num_workers, lose=lose), trials=81)
    assert [trial.number for trial in study.trials if trial.state == "failed"] == [2]
    assert study.trials[2].reason == "its worker was lost with it again and again: it was killed"
    assert study.status == "finished"


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
        steps = [
            round(NUM_STEPS * assignment.share) - (t.state or {"step": 0})["step"]
            for t in assignment.trials
        ]
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

    # 7.3 s of training and 2 of start-up; at the first round's pace the rest would take 27 times
    # 2.8.
    study = run(tmp_path / "s", Starting(clock, limit=18.0), trials=81, minutes=0.3)
    assert len(study.trials) == 81


def test_the_rung_under_way_is_finished_when_the_time_is_over_and_more_time_goes_on(
    tmp_path, monkeypatch
):
    heard = Heard()
    clock = Clock(monkeypatch, 50.0)
    study = run(tmp_path / "s", Standin(before=clock), minutes=1.5, observer=heard)
    assert (study.status, study.reason) == (
        "stopped",
        "its 1.5 minutes were over; 17 trials were not asked for",
    )
    assert clock.now == 100.0
    assert study.best.share < 1.0
    assert "continue with resume=True" in heard.notices[-1]
    monkeypatch.undo()
    assert run(tmp_path / "s", resume=True).status == "finished"
