"""A run that was interrupted goes on bitwise as if it had not been."""

import functools
import os
import signal

import pytest
import torch

import volano
from conftest import Quiet, StopAt, assert_same_runs, classification, experiment_records, make_mlp
from training.tasks import full_task
from volano import Plan
from volano.errors import CheckpointError, UsageError
from volano.training import RunFolder
from volano.training.checkpoints.checkpoint import load_latest

EVERY_STEP = volano.Safety(save_every="1st")


# Within the first epoch, at its end, one before the last step.
@pytest.mark.parametrize("stop_at", [1, 16, 31])
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_bitwise(make_task, quiet, tmp_path, stop_at, name):
    task = full_task(make_task)
    whole = volano.train(task, out=tmp_path / "whole", observer=quiet)
    stopped = volano.train(task, out=tmp_path / "parts", observer=StopAt(stop_at, name))
    assert (stopped.status, whole.status) == ("stopped", "finished")
    assert RunFolder.open(stopped.path).read_json("run.json")["step"] == stop_at
    resumed = volano.resume(stopped.path, task=task, observer=quiet)
    assert resumed.status == "finished"
    assert_same_runs(resumed.path, whole.path)


def test_what_is_asked_of_operations_is_kept(make_task, quiet, tmp_path):
    asked = []

    def objective(model, batch):
        asked.append(torch.are_deterministic_algorithms_enabled())
        return classification(model, batch)

    task, plan = make_task(objective=objective, duration="4st"), Plan.baseline()
    how = {"plan": plan.pin(deterministic=True)}
    volano.train(task, out=tmp_path / "run", observer=StopAt(2), **how)
    resumed = volano.resume(tmp_path / "run", task=task, observer=quiet)
    assert asked
    assert all(asked)
    assert not torch.are_deterministic_algorithms_enabled()
    assert RunFolder.open(resumed.path).read_json("run.json")["deterministic"] is True
    pinned = volano.train(
        task, out=tmp_path / "pinned", observer=quiet, deterministic=True, device="cpu",
        forbid={"compile": True},
    )  # fmt: skip
    assert pinned.plan.deterministic
    assert all(asked[-4:])


def test_stopped_at_every_epochs_end(make_task, quiet, tmp_path):
    task = full_task(make_task, duration="4ep")
    whole = volano.train(task, out=tmp_path / "whole", observer=quiet)
    run = volano.train(task, out=tmp_path / "parts", observer=StopAt(16))
    for step in (32, 48):
        run = volano.resume(run.path, task=task, observer=StopAt(step))
        assert run.status == "stopped"
        assert RunFolder.open(run.path).read_json("run.json")["step"] == step
    run = volano.resume(run.path, task=task, observer=quiet)
    assert_same_runs(run.path, whole.path)
    assert run.metrics == whole.metrics


def test_other_workers_go_on_with_the_very_next_example(make_task, quiet, tmp_path):
    task = full_task(make_task)
    plan = Plan.baseline()
    whole = volano.train(task, plan=plan, out=tmp_path / "whole", observer=quiet)
    stopped = volano.train(task, plan=plan, out=tmp_path / "parts", observer=StopAt(9))
    plan.pin(workers=1).save(stopped.path / "plan.json")
    resumed = volano.resume(stopped.path, task=task, observer=quiet)
    assert experiment_records(resumed.path) == experiment_records(whole.path)
    for got, expected in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(got, expected)


def test_a_second_ctrl_c_ends_at_once_and_the_checkpoint_stays(make_task, tmp_path):
    class Impatient(StopAt):
        def on_log(self, record):
            super().on_log(record)
            if record["step"] == self.step:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        volano.train(
            full_task(make_task),
            out=tmp_path / "run",
            observer=Impatient(5, signal.SIGINT),
            safety=EVERY_STEP,
        )
    assert load_latest(tmp_path / "run" / "checkpoints")[0] == 4
    assert (
        volano.resume(tmp_path / "run", task=full_task(make_task), observer=Quiet()).status
        == "finished"
    )


class TestRefusals:
    def test_a_changed_task_is_refused_with_what_changed(self, make_task, quiet, tmp_path):
        run = volano.train(full_task(make_task), out=tmp_path / "run", observer=StopAt(4))
        with pytest.raises(CheckpointError, match=r"now != then: .*clip_norm: 2.0 != 1.0"):
            volano.resume(run.path, task=full_task(make_task, clip_norm=2.0), observer=quiet)
        record = RunFolder.open(run.path).read_json("run.json")
        # A refusal leaves the run as it was.
        assert (record["status"], record["step"]) == ("stopped", 4)

    def test_a_finished_run_has_nothing_left(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(), out=tmp_path / "run", observer=quiet)
        with pytest.raises(UsageError, match="which is finished"):
            volano.resume(run.path, task=make_task(), observer=quiet)

    def test_a_run_that_was_killed_before_its_page_writes_it(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(), out=tmp_path / "run", observer=quiet)
        (run.path / "report.html").unlink()
        again = volano.resume(run.path, task=make_task(), observer=quiet)
        assert (again.status, again.metrics) == (run.status, run.metrics)
        assert (run.path / "report.html").is_file()

    def test_a_run_from_python_needs_its_task(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(), out=tmp_path / "run", observer=StopAt(4))
        with pytest.raises(UsageError, match=r"volano.resume\(.*task=task\)"):
            volano.resume(run.path, observer=quiet)

    def test_a_folder_that_is_no_run(self, tmp_path):
        with pytest.raises(UsageError, match="must hold run.json"):
            volano.resume(tmp_path)

    def test_another_schema_version(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(), out=tmp_path / "run", observer=StopAt(4))
        folder = RunFolder.open(run.path)
        folder.write_json("run.json", {**folder.read_json("run.json"), "schema_version": 99})
        with pytest.raises(CheckpointError, match="schema version 1; got 99"):
            volano.resume(run.path, task=make_task(), observer=quiet)

    def test_a_folder_that_exists(self, make_task, quiet, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(UsageError, match="which exists. Name another with `out`.$"):
            volano.train(make_task(), out=tmp_path, observer=quiet)
        assert (tmp_path / "file").read_text() == "mine"

    def test_what_failed_before_its_first_checkpoint_is_in_nobodys_way(
        self, make_task, quiet, tmp_path
    ):
        with pytest.raises(volano.VolanoError):
            volano.train(
                make_task(objective=lambda model, batch: 1.0), out=tmp_path / "run", observer=quiet
            )
        assert volano.train(make_task(), out=tmp_path / "run", observer=quiet).status == "finished"

    def test_a_mistake_found_while_preparing_leaves_nothing(self, make_task, quiet, tmp_path):
        with pytest.raises(volano.VolanoError):
            volano.train(
                make_task(), out=tmp_path / "run", observer=quiet, pins={"precision": "fp8"}
            )
        assert not (tmp_path / "run").exists()


def test_a_finished_run_keeps_its_weights_when_the_last_checkpoint_does_not_fit(
    make_task, quiet, tmp_path, monkeypatch
):
    def full(state, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    run = volano.train(make_task(), out=tmp_path / "run", observer=quiet)
    assert run.status == "finished"
    assert (run.path / "model.safetensors").exists()
    assert any("not saved at step 32" in notice for notice in run.notices)


def test_draws_from_numpy_and_random_go_on_too(make_task, quiet, tmp_path):
    import random

    import numpy as np

    from conftest import classification

    def objective(model, batch):
        share = np.random.beta(1.0, 1.0) * random.random() * torch.rand(()).item()
        return classification(model, (batch[0] * (1 + share), batch[1]))

    task = full_task(make_task, objective=objective)
    before = random.getstate(), np.random.get_state()[1].tolist()
    whole = volano.train(task, out=tmp_path / "whole", observer=quiet)
    random.seed(99)
    parts = volano.train(task, out=tmp_path / "parts", observer=StopAt(7))
    volano.resume(parts.path, task=task, observer=quiet)
    assert_same_runs(parts.path, whole.path)
    random.setstate(before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_a_schedule_of_numpys_numbers_can_be_resumed(make_task, quiet, tmp_path):
    import numpy as np

    task = make_task(schedule=lambda progress: 0.5 * (1 + np.cos(np.pi * progress)))
    run = volano.train(task, out=tmp_path / "run", observer=StopAt(4))
    assert volano.resume(run.path, task=task, observer=quiet).status == "finished"


def test_another_optimizer_implementation_after_a_resume(make_task, quiet, tmp_path):
    task = full_task(make_task)
    run = volano.train(task, plan=Plan.baseline(), out=tmp_path / "run", observer=StopAt(4))
    Plan.baseline().pin(optimizer="fused").save(run.path / "plan.json")
    assert volano.resume(run.path, task=task, observer=quiet).status == "finished"
    state = load_latest(run.path / "checkpoints")[1]
    assert state["optimizer"]["param_groups"][0]["fused"] is True


def test_a_plan_that_does_not_fit_leaves_nothing_in_the_way(make_task, quiet, tmp_path):
    for plan in (Plan.baseline().pin(precision="fp16"), Plan.baseline().pin(micro_batch=9999)):
        with pytest.raises(volano.VolanoError):
            volano.train(make_task(), plan=plan, out=tmp_path / "run", observer=quiet)
        assert not (tmp_path / "run").exists()
    with pytest.raises(volano.VolanoError):
        volano.train(
            make_task(model=torch.nn.ReLU),
            plan=Plan.baseline(),
            out=tmp_path / "run",
            observer=quiet,
        )
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert volano.train(make_task(), out=tmp_path / "run", observer=quiet).status == "finished"
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_an_unchanged_task_of_objects_is_the_same_task(make_task):
    from volano.task import describe

    class Config:
        def __init__(self):
            self.width = 3

    def make(config):
        return make_mlp()

    digests = {
        describe(make_task(model=functools.partial(make, Config())), make_mlp())["digest"]
        for _ in range(2)
    }
    assert len(digests) == 1


def objective_with(factor):
    source = (
        "def body(loss):\n    return loss * FACTOR\ndef objective(model, batch):\n    return body("
    )
    source += "cross_entropy(model(batch[0]), batch[1]))"
    names = {"cross_entropy": torch.nn.functional.cross_entropy}
    exec(source.replace("FACTOR", str(factor)), names)
    return names["objective"]


def test_a_resumed_run_has_the_code_with_which_it_began(make_task, tmp_path):
    class StopAtOnce(volano.Observer):
        def on_evaluation(self, record):
            os.kill(os.getpid(), signal.SIGTERM)

    def task(factor):
        return make_task(objective=objective_with(factor), evaluate_every="1st", duration="9st")

    run = volano.train(task(1.5), plan=Plan.baseline(), out=tmp_path / "run", observer=StopAtOnce())
    assert run.status == "stopped"
    common = {"observer": StopAtOnce()}
    with pytest.raises(CheckpointError, match="the code of objective: .*`accept`"):
        volano.resume(run.path, task=task(2.5), **common)
    with pytest.raises(UsageError, match="`accept` must name code: objective, forward"):
        volano.resume(run.path, task=task(2.5), accept=["modle"], **common)
    changed = volano.resume(run.path, task=task(2.5), accept=["objective"], **common)
    assert any("the code of objective is not that" in notice for notice in changed.notices)
    assert volano.resume(run.path, task=task(2.5), **common).status == "stopped"
    with pytest.raises(CheckpointError, match="the code of objective"):
        volano.resume(run.path, task=task(3.5), **common)
