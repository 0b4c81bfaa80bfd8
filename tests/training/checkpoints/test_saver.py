"""Saves stand beside the loop, and none that fails ends a run."""

import shutil
import threading
import time

import pytest
import torch

import volano
from conftest import Quiet
from volano.errors import CheckpointError
from volano.training import RunFolder, Safety
from volano.training.checkpoints.checkpoint import list_checkpoints, load_checkpoint, load_latest
from volano.training.checkpoints.saver import Saver

EVERY_STEP = Safety(save_every="1st")


def assert_same_weights(one, other):
    for got, expected in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(got, expected)


class TestBesideTheLoop:
    def test_what_is_saved_is_of_one_moment_while_training_goes_on(
        self, make_task, quiet, tmp_path, monkeypatch
    ):
        real = torch.save

        def slow(state, file):
            time.sleep(0.1)
            real(state, file)

        monkeypatch.setattr(torch, "save", slow)
        weights = {}

        class Watch(Quiet):
            def on_start(self, info):
                self.first = info.first_step

        run = volano.train(
            make_task(), out=tmp_path / "run", observer=Watch(), safety=Safety(save_every="0.05s")
        )
        monkeypatch.undo()
        reference = volano.train(
            make_task(), out=tmp_path / "whole", observer=quiet, safety=EVERY_STEP
        )
        for path in list_checkpoints(run.path / "checkpoints"):
            weights[path.name] = load_checkpoint(path)[1]["model"]
        final = load_checkpoint(list_checkpoints(reference.path / "checkpoints")[-1])[1]["model"]
        for name, tensor in weights["step-00000032"].items():
            assert torch.equal(tensor, final[name])
        # The one before it was written while later steps ran: going on from it must give the same
        # end.
        shutil.rmtree(run.path / "checkpoints" / "step-00000032")
        folder = RunFolder.open(run.path)
        folder.update_run(status="running")
        again = volano.resume(run.path, task=make_task(), observer=quiet)
        assert_same_weights(again.model, reference.model)

    def test_one_save_at_a_time_and_none_left_at_the_end(
        self, make_task, quiet, tmp_path, monkeypatch
    ):
        real, running, most = torch.save, [], []

        def watched(state, file):
            running.append(1)
            most.append(len(running))
            time.sleep(0.01)
            real(state, file)
            running.pop()

        monkeypatch.setattr(torch, "save", watched)
        volano.train(make_task(), out=tmp_path / "run", observer=quiet, safety=EVERY_STEP)
        assert set(most) == {1}
        assert len(most) == 32
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("volano")]

    def test_an_error_of_any_kind_is_told_and_the_run_goes_on(
        self, make_task, quiet, tmp_path, monkeypatch
    ):
        real = torch.save

        def broken(state, file):
            if state["step"] == 5:
                raise MemoryError("no room for the archive")
            real(state, file)

        monkeypatch.setattr(torch, "save", broken)
        run = volano.train(make_task(), out=tmp_path / "run", observer=quiet, safety=EVERY_STEP)
        assert any(
            "not saved at step 5: no room for the archive" in notice for notice in run.notices
        )

    def test_without_memory_for_a_copy_the_loop_writes_itself(
        self, make_task, quiet, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("volano.training.checkpoints.saver._COPY_SHARE", 0.0)
        run = volano.train(make_task(), out=tmp_path / "run", observer=quiet, safety=EVERY_STEP)
        assert sum("no room for a copy" in notice for notice in run.notices) == 1
        assert len(list_checkpoints(run.path / "checkpoints")) == 2

    def test_seconds_are_stretched_where_saving_is_dear(self, tmp_path):
        folder = RunFolder(tmp_path)
        saver = Saver(folder, Safety(save_every="0.001s"), lambda: {"step": 1}, lambda _: None)
        saver._charge(1.0)
        assert saver._interval == pytest.approx(50.0)  # 2 % of the time
        every = Saver(folder, Safety(save_every="3st"), lambda: {"step": 1}, lambda _: None)
        every._charge(1.0)
        assert [step for step in range(1, 10) if every.is_at(step)] == [3, 6, 9]


def test_a_full_disk_in_mid_run_is_announced_and_the_run_goes_on(
    make_task, quiet, tmp_path, monkeypatch
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
        "not saved at step 5" in notice and "The run continues" in notice for notice in run.notices
    )


class TestOneSaver:
    @pytest.fixture
    def told(self):
        return []

    @pytest.fixture
    def saver(self, tmp_path, told):
        """A saver whose state is ``saver.state``."""
        state = {"step": 7, "value": torch.ones(2)}
        made = Saver(RunFolder(tmp_path), EVERY_STEP, lambda: dict(made.state), told.append)
        made.state = state
        yield made
        made.close()

    def test_a_copy_is_written_beside_the_loop(self, saver, tmp_path):
        saver.save()
        saver.state["value"].zero_()
        saver.close()
        step, state, _ = load_latest(tmp_path / "checkpoints")
        assert (step, state["value"].tolist()) == (7, [1.0, 1.0])

    def test_the_last_save_is_left_out_if_it_would_be_the_same(self, saver, tmp_path, monkeypatch):
        saver.save()
        saver.close()
        monkeypatch.setattr(torch, "save", None)  # would fail
        saver.finish(must=True)
        assert len(list_checkpoints(tmp_path / "checkpoints")) == 1

    def test_a_save_that_must_be_is_raised_and_another_is_told(self, saver, told, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match="No space left"):
            saver.finish(must=True)
        saver.finish(must=False)
        saver.finish(must=False)
        assert len(told) == 1  # when it begins
        assert told[0].startswith("not saved at step 7: ")
        monkeypatch.undo()
        saver.finish(must=False)
        assert told[1:] == ["saved again at step 7"]

    def test_the_device_is_waited_for_before_a_save_is_timed(self, tmp_path):
        log: list[str] = []

        def state():
            log.append("state")
            return {"step": 1}

        saver = Saver(
            RunFolder(tmp_path), EVERY_STEP, state, log.append,
            synchronize=lambda: log.append("waited"),
        )  # fmt: skip
        saver.save()
        saver.close()
        assert log[:2] == ["waited", "state"]

    def test_seconds_are_late_once(self, tmp_path, monkeypatch):
        now = [100.0]
        monkeypatch.setattr("volano.training.checkpoints.saver.time.perf_counter", lambda: now[0])
        saver = Saver(RunFolder(tmp_path), Safety(save_every="10s"), dict, lambda _: None)
        assert not saver.is_late()
        now[0] += 10
        assert saver.is_late()
        assert not saver.is_late()
        by_steps = Saver(RunFolder(tmp_path), EVERY_STEP, dict, lambda _: None)
        now[0] += 1e6
        assert not by_steps.is_late()
