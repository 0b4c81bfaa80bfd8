"""A task made ready to run: models, phases, previews and what a checkpoint says of it."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn

import volano
from conftest import make_mlp
from volano import Plan
from volano.errors import CheckpointError, PlanError, TaskError
from volano.training import Session
from volano.training import session as module


def session(task, plan=None) -> Session:
    notices = []
    made = Session(task, plan or Plan.baseline(), on_notice=notices.append)
    made.notices = notices
    return made


def test_a_model_that_is_none(make_task):
    with pytest.raises(TaskError, match="must return an nn.Module; got NoneType"):
        session(make_task(model=lambda: None))


def test_a_micro_batch_larger_than_the_batch(make_task):
    with pytest.raises(PlanError, match="part of the batch; got micro_batch=64 with batch_size=32"):
        session(make_task(), Plan.baseline().pin(micro_batch=64))


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_a_precision_that_the_device_lacks(make_task, precision):
    with pytest.raises(PlanError, match=f"computes in fp32, bf16; got precision='{precision}'"):
        session(make_task(), Plan.baseline().pin(precision=precision))


def test_a_whole_plan_respects_the_tolerance(make_task, quiet, tmp_path):
    with pytest.raises(PlanError, match="tolerance, 'exact'; got precision='bf16'"):
        volano.train(
            make_task(tolerance="exact"),
            plan=Plan.baseline().pin(precision="bf16"),
            out=tmp_path / "r",
            observer=quiet,
        )


def test_what_a_person_asks_of_operations_is_within_every_tolerance(make_task):
    plan = Plan(deterministic=True)
    assert session(make_task(tolerance="exact"), plan).plan == plan
    with pytest.raises(PlanError, match="tolerance, 'exact'; got precision='bf16'"):
        session(make_task(tolerance="exact"), plan.pin(precision="bf16"))


def test_seeds_may_vary_over_one_order_of_the_data(make_task):
    one, other = (session(make_task(seed=seed, data_seed=5)) for seed in (5, 6))
    orders = [[key.indices.tolist() for key in made.keys()] for made in (one, other)]  # noqa: SIM118 - a method of the session
    assert orders[0] == orders[1]
    assert not torch.equal(*(next(made.model.parameters()) for made in (one, other)))
    assert session(make_task(seed=5)).order == one.order


def test_a_model_begins_alike_in_every_run(make_task):
    def noisy():
        model = nn.Linear(2, 2)
        with torch.no_grad():
            model.bias.fill_(random.random() + float(np.random.rand()))
        return model

    one, other = (Session.make_model(make_task(model=noisy, seed=5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    different = Session.make_model(make_task(model=noisy, seed=6))
    assert not torch.equal(one.bias, different.bias)


def test_time_of_a_phase_is_without_that_of_phases_inside(make_task, monkeypatch):
    made = session(make_task())
    now = [made._charged_until]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    with made.phase("train"):
        now[0] += 5
        with made.phase("evaluate"):
            now[0] += 3
        now[0] += 1
    now[0] += 100  # in no phase
    with made.phase("train"):
        now[0] += 2
    assert (made.seconds["train"], made.seconds["evaluate"]) == (8, 3)


def test_a_preview_puts_modes_and_random_state_back(make_task):
    def preview(model):
        assert not any(part.training for part in model.modules())
        return {"drawn": torch.rand(()).item()}

    made = session(make_task(model=functools.partial(make_mlp, dropout=0.5), preview=preview))
    made.model[2].eval()
    before = torch.get_rng_state()
    assert made.preview() == made.preview()
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.training for part in made.model] == [True, True, False, True]


def test_the_average_is_what_is_kept(make_task):
    assert (plain := session(make_task())).kept_model is plain.model
    averaged = session(make_task(ema_decay=0.9))
    assert averaged.kept_model is not averaged.model
    assert averaged.gathered() is averaged.kept_model


def test_a_state_of_another_task_is_refused_with_what_changed(make_task, tmp_path):
    earlier = session(make_task())
    with pytest.raises(CheckpointError, match="the task with which it began.*batch_size"):
        session(make_task(batch_size=16)).load_state_dict(
            earlier.state_dict(), earlier.description, tmp_path
        )


def test_a_state_in_another_order_of_the_data_is_refused(make_task, tmp_path):
    made = session(make_task())
    state = {**made.state_dict(), "order_version": 99}
    with pytest.raises(CheckpointError, match="order of examples must be of version"):
        made.load_state_dict(state, made.description, tmp_path)


def test_sharding_in_one_process_has_no_effect_and_says_so(make_task):
    made = session(make_task(), Plan.baseline().pin(sharding="full"))
    assert "sharding=full has no effect: there is one process" in made.notices


class Frozen(nn.BatchNorm1d):
    """Stays in evaluation mode, as a person's own `train` may say."""

    def train(self, mode=True):
        return super().train(False)


def in_evaluation_mode():
    """Like what `from_pretrained` gives."""
    net = nn.Sequential(
        nn.Linear(64, 8), nn.Dropout(0.5), Frozen(8), nn.BatchNorm1d(8), nn.Linear(8, 10)
    )
    return net.eval()


def test_a_model_in_evaluation_mode_is_trained_in_training_mode(make_task):
    task = make_task(model=in_evaluation_mode)
    session = Session(task, Plan.baseline())
    assert session.model.training
    _, dropout, frozen, norm, _ = session.model
    assert (dropout.training, frozen.training, norm.training) == (True, False, True)
    before = norm.running_mean.clone()
    batch = next(iter(session.feed.batches(session.order.keys(0, 1))))
    session.step_once(batch, 0)
    assert not torch.equal(norm.running_mean, before)
    session.evaluate()
    assert (dropout.training, frozen.training, norm.training) == (True, False, True)


class FrozenBody(nn.Module):
    """Freezes its norm in `train`, which nobody has called when it is made."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(64), nn.Linear(64, 10)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, inputs):
        return self.head(self.norm(inputs))


def test_a_module_that_freezes_parts_in_train_is_asked(make_task):
    model = Session.make_model(make_task(model=FrozenBody))
    assert (model.training, model.norm.training) == (True, False)
    partly = Session.make_model(make_task(model=lambda: nn.Sequential(nn.BatchNorm1d(64).eval())))
    assert (partly.training, partly[0].training) == (True, False)
