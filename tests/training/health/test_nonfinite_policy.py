"""Numbers that go wrong are kept from the weights, traced and recorded; healthy ones are never
touched."""

import copy
import functools
import json

import pytest
import torch
from torch import nn

import volano
from conftest import StopAt, assert_same, classification, classification_with_accuracy
from training.nonfinite import Explodes, Overflows, state_of
from volano import Plan
from volano.errors import NumericsError
from volano.training import RunFolder, Safety, Session
from volano.training.checkpoints.checkpoint import load_latest
from volano.training.nonfinite_guard import NonfiniteGuard

EVERY_STEP = "1st"


def bad_at(*steps, base=classification, factor=float("nan")):
    """An objective whose loss is bad for the batches of some steps (from 0), whenever and wherever
    it is called.

    Call ``prepare(task)`` once: the batches are known by the sum of their pixels.
    """
    bad = set()

    def objective(model, batch):
        loss = base(model, batch)
        if float(batch[0].double().sum()) not in bad:
            return loss
        if isinstance(loss, volano.Loss):
            return volano.Loss(total=loss.total * factor, weight=loss.weight, metrics=loss.metrics)
        return loss * factor

    def prepare(task):
        order = volano.data.order.Order(
            num_examples=len(task.data), batch_size=task.batch_size, seed=task.seed
        )
        for step in steps:
            rows = torch.from_numpy(order.key(step).indices.copy())
            bad.add(float(task.data.tensors[0][rows].double().sum()))
        return task

    objective.prepare = prepare
    return objective


def records(path):
    return [json.loads(line) for line in (path / "numerics.jsonl").read_text().splitlines()]


class TestStop:
    @pytest.mark.parametrize("factor", [float("nan"), float("inf")])
    def test_a_bad_loss_stops_the_run_before_the_weights(self, make_task, quiet, tmp_path, factor):
        objective = bad_at(5, factor=factor)
        task = objective.prepare(make_task(objective=objective))
        with pytest.raises(
            NumericsError,
            match=rf"at step 6 they were not; got loss {factor}: first seen in the forward of "
            r"objective; examples "
            r".*numerics.jsonl.*skip_bad_steps. "
            r"The run can be resumed from checkpoints/step-00000005",
        ):
            volano.train(
                task, out=tmp_path / "run", observer=quiet, safety=Safety(save_every=EVERY_STEP)
            )
        assert RunFolder.open(tmp_path / "run").read_json("run.json")["status"] == "failed"
        step, state, _ = load_latest(tmp_path / "run" / "checkpoints")
        assert step == 5
        assert all(tensor.isfinite().all() for tensor in state["model"].values())
        (record,) = records(tmp_path / "run")
        order = volano.data.order.Order(num_examples=512, batch_size=32, seed=task.seed)
        assert record["examples"] == order.key(5).indices.tolist()
        assert (record["step"], record["action"], record["module"]) == (6, "stopped", "objective")

    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
    @pytest.mark.parametrize("clip", [None, 1.0])
    @pytest.mark.parametrize("broken", [Explodes, Overflows])
    @pytest.mark.parametrize("implementation", ["as_given", "foreach", "fused"])
    def test_weights_and_optimizer_state_stay(
        self, make_task, optimizer, clip, broken, implementation
    ):
        task = make_task(
            model=lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
            optimizer=functools.partial(optimizer, lr=0.1),
            clip_norm=clip,
            ema_decay=0.9,
        )
        session = Session(
            task, Plan.baseline().pin(optimizer=implementation), on_notice=lambda _: None
        )
        batches = session.feed.batches(session.order.keys(0, 6))
        for step in range(3):
            assert not session.step_once(next(batches), step).is_bad
        before, average = state_of(session), copy.deepcopy(session.state.ema.model.state_dict())
        handle = session.model[2].register_forward_hook(
            lambda module, inputs, output: broken()(output)
        )
        assert session.step_once(next(batches), 3).is_bad
        handle.remove()
        after = state_of(session)
        for group in (*before[1]["param_groups"], *after[1]["param_groups"]):
            group.pop("lr")  # the schedule's, not the gradient's
        assert_same(after, before)
        assert_same(session.state.ema.model.state_dict(), average)
        assert not session.step_once(next(batches), 4).is_bad


class TestDeferred:
    """What an accelerator with a fused optimizer does, run on the CPU: its fused kernels obey the
    same flag."""

    @pytest.fixture
    def deferred(self, monkeypatch):
        real = NonfiniteGuard.__init__

        def pretend(
            self, device, optimizer, *, has_scaler, reads_at_once, share=None, has_values=True
        ):
            real(
                self,
                device,
                optimizer,
                has_scaler=has_scaler,
                reads_at_once=reads_at_once,
                has_values=has_values,
            )
            self._is_cpu, self.is_deferred = False, not reads_at_once
            self.holds_back = True
            if self.is_deferred:
                optimizer.found_inf = self._flag

        monkeypatch.setattr(NonfiniteGuard, "__init__", pretend)

    @pytest.mark.parametrize("clip", [None, 1.0])
    def test_nothing_moves_until_the_host_looks(self, make_task, deferred, clip):
        task = make_task(optimizer=functools.partial(torch.optim.AdamW, lr=0.1), clip_norm=clip)
        session = Session(task, Plan.baseline().pin(optimizer="fused"), on_notice=lambda _: None)
        batches = session.feed.batches(session.order.keys(0, 8))
        for step in range(3):
            session.step_once(next(batches), step)
        assert session.step_once.guard.num_flagged == 0
        before = copy.deepcopy(session.model.state_dict())
        moments = copy.deepcopy(session.optimizer.state_dict()["state"])
        handle = session.model[3].register_forward_hook(
            lambda module, inputs, output: Overflows()(output)
        )
        assert not session.step_once(next(batches), 3).is_bad  # nobody knows yet
        handle.remove()
        for step in range(4, 6):
            session.step_once(next(batches), step)
        assert session.step_once.guard.num_flagged == 3  # steps 3, 4 and 5
        assert_same(session.model.state_dict(), before)
        assert_same(session.optimizer.state_dict()["state"], moments)

    def test_a_run_stops_at_the_next_look_with_the_step_that_was_bad(
        self, make_task, quiet, tmp_path, deferred
    ):
        objective = bad_at(5)
        # A line every tenth step.
        task = objective.prepare(make_task(objective=objective, duration="320st"))
        with pytest.raises(NumericsError, match="at step 6 they were not"):
            volano.train(
                task,
                out=tmp_path / "run",
                observer=quiet,
                plan=Plan.baseline().pin(optimizer="fused", feed="resident"),
            )
        assert records(tmp_path / "run")[0]["step"] == 6

    def test_healthy_numbers_are_bitwise_those_of_the_other_way(
        self, make_task, quiet, tmp_path, request
    ):
        plan = Plan.baseline().pin(optimizer="fused", feed="resident")
        plain = volano.train(make_task(), plan=plan, out=tmp_path / "1", observer=quiet)
        request.getfixturevalue("deferred")
        other = volano.train(make_task(), plan=plan, out=tmp_path / "2", observer=quiet)
        for one, two in zip(plain.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(one, two)


class TestSkip:
    def test_as_many_as_allowed_are_left_out_and_recorded(self, make_task, quiet, tmp_path):
        objective = bad_at(5, 9, base=classification_with_accuracy)
        task = objective.prepare(make_task(objective=objective))
        run = volano.train(
            task, out=tmp_path / "run", observer=quiet, safety=Safety(skip_bad_steps=2)
        )
        assert run.status == "finished"
        assert [(record["step"], record["action"]) for record in records(run.path)] == [
            (6, "skipped"),
            (10, "skipped"),
        ]
        assert any("step 6 was left out (1 of 2)" in notice for notice in run.notices)
        assert all(parameter.isfinite().all() for parameter in run.model.parameters())
        assert RunFolder.open(run.path).read_json("run.json")["safety"]["skip_bad_steps"] == 2

    def test_one_more_stops_the_run(self, make_task, quiet, tmp_path):
        objective = bad_at(5, 9)
        task = objective.prepare(make_task(objective=objective))
        with pytest.raises(
            NumericsError, match="at step 10, after 1 that were left out, they were not"
        ):
            volano.train(
                task, out=tmp_path / "run", observer=quiet, safety=Safety(skip_bad_steps=1)
            )
        assert [record["action"] for record in records(tmp_path / "run")] == ["skipped", "stopped"]

    def test_statistics_of_the_model_do_not_see_a_skipped_batch(
        self, make_task, quiet, tmp_path, digits
    ):
        pixels, labels = (tensor[:512].clone() for tensor in digits)
        pixels[100, 7] = float("nan")
        task = make_task(
            model=lambda: nn.Sequential(
                nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)
            ),
            data=torch.utils.data.TensorDataset(pixels, labels),
        )
        run = volano.train(
            task, out=tmp_path / "run", observer=quiet, safety=Safety(skip_bad_steps=2)
        )
        assert all(buffer.isfinite().all() for buffer in run.model.buffers())
        # Once in each of two epochs.
        assert int(run.model[1].num_batches_tracked) == task.num_steps - 2
        assert [record["suspects"] for record in records(run.path)] == [[100], [100]]

    def test_a_resumed_run_knows_how_many_were_left_out(self, make_task, quiet, tmp_path):
        objective = bad_at(5, 9)
        task = objective.prepare(make_task(objective=objective))
        run = volano.train(
            task, out=tmp_path / "run", observer=StopAt(8), safety=Safety(skip_bad_steps=1)
        )
        assert run.status == "stopped"
        with pytest.raises(NumericsError, match="after 1 that were left out"):
            volano.resume(run.path, task=task, observer=quiet)
        assert (
            volano.resume(
                run.path, task=task, observer=quiet, safety=Safety(skip_bad_steps=3)
            ).status
            == "finished"
        )
        assert [record["step"] for record in records(run.path)] == [6, 10]


class TestSpikes:
    def test_one_step_far_above_the_rest_is_marked(self, make_task, quiet, tmp_path):
        objective = bad_at(100, factor=50.0)
        task = objective.prepare(make_task(objective=objective, duration="160st"))
        run = volano.train(task, out=tmp_path / "run", observer=quiet)
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        # A line every fifth step.
        assert next(line["step"] for line in lines if line.get("spike")) == 105
