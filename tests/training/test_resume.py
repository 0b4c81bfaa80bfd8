"""A run that was interrupted goes on bitwise as if it had not been."""

import functools
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

import volano
from conftest import (
    Quiet,
    assert_same_runs,
    classification_with_accuracy,
    experiment_records,
    make_mlp,
)
from volano import Plan
from volano.errors import CheckpointError, DataError, UsageError
from volano.training import RunFolder, Session
from volano.training.checkpoints.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)


class StopAt(Quiet):
    """Sends itself a signal when a step has been logged."""

    def __init__(self, step, name=signal.SIGTERM):
        super().__init__()
        self.step, self.name = step, name

    def on_log(self, record):
        super().on_log(record)
        if record["step"] == self.step:
            os.kill(os.getpid(), self.name)


def full_task(make_task, **fields):
    """A task with everything that has a state."""
    base = {
        "model": functools.partial(make_mlp, dropout=0.3),
        "objective": classification_with_accuracy,
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-2),
        "schedule": volano.cosine(warmup=0.1),
        "ema_decay": 0.95,
        "clip_norm": 1.0,
        "augment": lambda batch, generator: [
            batch[0] + 0.01 * torch.rand(batch[0].shape, generator=generator),
            batch[1],
        ],
    }
    return make_task(**{**base, **fields})


EVERY_STEP = volano.Safety(save_every="1st")


@pytest.mark.parametrize(
    "stop_at", [1, 16, 31]
)  # within the first epoch, at its end, one before the last step
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


def test_handlers_are_put_back(make_task, quiet, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    volano.train(make_task(), out=tmp_path / "run", observer=quiet)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_run_in_another_thread_leaves_signals_alone(make_task, quiet, tmp_path):
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(volano.train(make_task(), out=tmp_path / "r", observer=quiet))
    )
    thread.start()
    thread.join()
    assert runs[0].status == "finished"


class TestRefusals:
    def test_a_changed_task_is_refused_with_what_changed(self, make_task, quiet, tmp_path):
        run = volano.train(full_task(make_task), out=tmp_path / "run", observer=StopAt(4))
        with pytest.raises(CheckpointError, match=r"now != then: .*clip_norm: 2.0 != 1.0"):
            volano.resume(run.path, task=full_task(make_task, clip_norm=2.0), observer=quiet)
        record = RunFolder.open(run.path).read_json("run.json")
        assert (record["status"], record["step"]) == (
            "stopped",
            4,
        )  # a refusal leaves the run as it was

    def test_a_finished_run_has_nothing_left(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(), out=tmp_path / "run", observer=quiet)
        with pytest.raises(UsageError, match="which is finished"):
            volano.resume(run.path, task=make_task(), observer=quiet)

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
        with pytest.raises(
            UsageError, match="folder of its own; got .*which exists.*volano resume"
        ):
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


class TestCheckpoints:
    def test_the_last_two_are_kept(self, tmp_path):
        for step in range(1, 6):
            save_checkpoint(tmp_path, step, {"value": torch.tensor(step)})
        assert [path.name for path in sorted(tmp_path.iterdir())] == [
            "step-00000004",
            "step-00000005",
        ]
        assert load_latest(tmp_path)[1]["value"].item() == 5

    def test_a_damaged_one_is_named_and_passed_over(self, make_task, quiet, tmp_path):
        for step in (1, 2):
            save_checkpoint(tmp_path, step, {"value": step})
        file = tmp_path / "step-00000002" / "state.pt"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        step, state, problems = load_latest(tmp_path)
        assert (step, state["value"]) == (1, 1)
        assert "step-00000002" in problems[0]

    @pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
    def test_a_missing_file_is_named(self, tmp_path, name):
        save_checkpoint(tmp_path, 1, {"value": 1})
        (tmp_path / "step-00000001" / name).unlink()
        with pytest.raises(CheckpointError, match=f"(?s)whole checkpoint; got none.*{name}"):
            load_latest(tmp_path)

    def test_nothing_is_executed_on_loading(self, tmp_path):
        class Malicious:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "owned"),))

        save_checkpoint(tmp_path, 1, {"value": Malicious()})
        with pytest.raises(Exception, match="(?i)weights.only|unsupported"):
            load_checkpoint(tmp_path / "step-00000001")
        assert not (tmp_path / "owned").exists()

    def test_a_full_disk_leaves_the_previous_one_whole(self, tmp_path, monkeypatch):
        save_checkpoint(tmp_path, 1, {"value": 1})
        real_save = torch.save

        def full(state, file):
            real_save(state, file)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match=r"can be written; got .*No space left"):
            save_checkpoint(tmp_path, 2, {"value": 2})
        assert load_latest(tmp_path)[0] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]

    def test_a_full_disk_in_mid_run_is_announced_and_the_run_goes_on(
        self, make_task, quiet, tmp_path, monkeypatch
    ):
        real_save, calls = torch.save, []

        def sometimes_full(state, file):
            calls.append(state["step"])
            if state["step"] == 5:
                raise OSError(28, "No space left on device")
            real_save(state, file)

        monkeypatch.setattr(torch, "save", sometimes_full)
        run = volano.train(make_task(), out=tmp_path / "run", observer=quiet, safety=EVERY_STEP)
        assert run.status == "finished"
        assert 5 in calls
        assert any(
            "not saved at step 5" in notice and "The run continues" in notice
            for notice in run.notices
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_called_by_its_name(tmp_path, monkeypatch):
    real_open = Path.open

    def on_a_full_disk(self, mode="r", *args, **kwargs):
        # Unbuffered, as a large file is: the write itself fails.
        return (
            real_open(Path("/dev/full"), "wb", buffering=0)
            if self.name == "state.pt" and "w" in mode
            else real_open(self, mode, *args, **kwargs)
        )

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(tmp_path, 1, {"value": torch.zeros(1000)})
    assert not list(tmp_path.iterdir())


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
    from conftest import make_mlp
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


@pytest.mark.parametrize("now", ["as_given", "foreach", "fused"])
@pytest.mark.parametrize("then", ["as_given", "foreach", "fused"])
def test_the_implementation_of_the_optimizer_is_that_of_the_plan(make_task, tmp_path, then, now):
    def session_of(implementation):
        plan = Plan.baseline().pin(optimizer=implementation)
        session = Session(full_task(make_task), plan, on_notice=lambda _: None)
        return session, [
            (group["foreach"], group["fused"]) for group in session.optimizer.param_groups
        ]

    earlier, _ = session_of(then)
    for step, batch in enumerate(earlier.feed.batches(earlier.order.keys(0, 2))):
        earlier.step_once(batch, step)
    session, marks = session_of(now)
    session.load_state_dict(earlier.state_dict(), earlier.description, tmp_path)
    assert [(group["foreach"], group["fused"]) for group in session.optimizer.param_groups] == marks
    for batch in session.feed.batches(session.order.keys(2, 3)):
        session.step_once(batch, 2)
