"""What steps say is logged in means, whatever interrupts a run between two lines."""

import os
import signal
import types

import pytest
import torch

import volano
from conftest import Quiet, assert_same_runs
from training.tasks import full_task
from volano import Plan
from volano.errors import DataError
from volano.training import RunFolder, Session
from volano.training.checkpoints.checkpoint import list_checkpoints
from volano.training.loop import TrainingLog
from volano.training.step import StepResult


def test_stopped_twice_between_two_logged_lines(make_task, quiet, tmp_path, monkeypatch):
    monkeypatch.setattr("volano.training.loop._LOGS_PER_RUN", 3)  # a line every tenth step
    task = full_task(make_task, evaluate_every="3st")

    class StopAtEvaluation(Quiet):
        def on_evaluation(self, record):
            if record["step"] in (6, 21):
                os.kill(os.getpid(), signal.SIGTERM)

    whole = volano.train(task, out=tmp_path / "whole", observer=quiet)
    run = volano.train(task, out=tmp_path / "parts", observer=StopAtEvaluation())
    run = volano.resume(run.path, task=task, observer=StopAtEvaluation())
    assert run.status == "stopped"
    run = volano.resume(run.path, task=task, observer=quiet)
    assert_same_runs(run.path, whole.path)


def test_a_run_whose_data_ends_it_is_saved_first_and_goes_on(make_task, quiet, tmp_path):
    calls = []

    def collate(examples):
        calls.append(len(calls))
        if len(calls) == 12:
            raise ValueError("a share that was unmounted")
        return torch.utils.data.default_collate(examples)

    task = full_task(make_task, collate=collate, valid=None)
    plan = Plan.baseline()
    with pytest.raises(DataError, match=r"a share that was unmounted \(examples \d+, "):
        volano.train(task, plan=plan, out=tmp_path / "parts", observer=quiet)
    assert RunFolder.open(tmp_path / "parts").read_json("run.json")["status"] == "failed"
    (saved,) = list_checkpoints(tmp_path / "parts" / "checkpoints")
    assert saved.name == "step-00000011"
    volano.resume(tmp_path / "parts", task=task, observer=quiet)
    volano.train(task, plan=plan, out=tmp_path / "whole", observer=quiet)
    assert_same_runs(tmp_path / "parts", tmp_path / "whole")


class TestTrainingLog:
    def step(self, loss=1.0, **metrics):
        return StepResult(torch.tensor(loss), metrics)

    @pytest.mark.parametrize(
        ("num_steps", "due"), [(3, [1, 2, 3]), (300, [10, 20, 30]), (10**6, [100, 200, 300])]
    )
    def test_a_line_for_each_thirtieth_of_a_run_and_for_each_hundred_steps(self, num_steps, due):
        log = TrainingLog(num_steps)
        log.add(self.step())
        assert [step for step in range(1, num_steps + 1) if log.is_due(step)][:3] == due

    def test_the_last_step_has_a_line(self):
        log = TrainingLog(305)
        assert not log.is_due(305)  # there is nothing to say
        log.add(self.step())
        assert log.is_due(305)
        assert not log.is_due(304)

    def test_a_metric_is_averaged_over_the_steps_that_have_it(self, make_task):
        session = Session(make_task(), Plan.baseline(), on_notice=lambda _: None)
        log = TrainingLog(10)
        log.add(self.step(2.0, accuracy=0.5))
        log.add(self.step(4.0, another=3.0, accuracy=1.0))
        other = TrainingLog(10)
        other.load_state_dict(log.state_dict())
        other.add(self.step(6.0))
        policy = types.SimpleNamespace(judge=lambda *_: None)
        record = other.read(session, policy)
        assert {name: record[name] for name in ("loss", "accuracy", "another")} == {
            "loss": 4.0, "accuracy": 0.75, "another": 3.0,
        }  # fmt: skip
        other.add(self.step(1.0))
        assert "accuracy" not in other.read(session, policy)

    def test_what_was_not_read_goes_on(self):
        log = TrainingLog(10)
        log.add(self.step(2.0, accuracy=0.5))
        state = log.state_dict()
        other = TrainingLog(10)
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert (state["names"], state["pending"]) == (["loss", "accuracy"], [[2.0, 0.5]])
        assert other.is_due(10)

    def test_a_state_of_an_earlier_version_has_no_spikes(self):
        log = TrainingLog(10)
        log.load_state_dict({"names": [], "pending": []})
        assert log.state_dict()["spikes"] == []
