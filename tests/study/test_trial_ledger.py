"""A study's accounts agree in memory, in its folder and in Optuna, whatever moment a process is
killed at."""

from __future__ import annotations

import pytest

from study.standin import Killed, Standin, interrupted_before, lines, run, task, told


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


def test_trials_are_compared_by_parameter_values_that_json_cannot_hold_too(tmp_path):
    def choosing(trial):
        trial.suggest_categorical("kind", ["a", None, 3, True])
        trial.suggest_int("depth", 1, 4)
        return task()

    workers = Standin(lambda params, step: float(params["depth"]))
    study = run(tmp_path / "s", workers, build=choosing, trials=9)
    assert {type(t.params["kind"]) for _, a in workers.assignments for t in a.trials} <= {
        str,
        type(None),
        int,
        bool,
    }
    assert study.best.params["depth"] == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that nobody killed."""
    return run(tmp_path_factory.mktemp("whole") / "s")


@pytest.mark.parametrize("method", ["save", "asked", "shown", "ended", "decided"])
@pytest.mark.parametrize("call", [1, 3, 5])
def test_a_study_killed_anywhere_goes_on_and_tells_nothing_twice(
    tmp_path, monkeypatch, whole, method, call
):
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
    events = (tmp_path / "s" / "trials.jsonl").exists() and (
        tmp_path / "s" / "trials.jsonl"
    ).read_text()
    study = run(tmp_path / "s", resume=bool(events))
    assert study.status == "finished"
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
