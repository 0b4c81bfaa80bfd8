"""Recorded steps are eager ones, bit by bit; what cannot be recorded stays eager and says so."""

import functools
import os
import random
import signal
from typing import Any

import pytest
import torch
from torch import nn

import volano
from training.graphs.recording_graph import recording  # noqa: F401 - a fixture
from volano.plan import Plan
from volano.training.graphs.gradient_graph import why_not_graph


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x):
        return self.head(self.drop(self.body(x)).flatten(1))


def objective(model, batch):
    x, y = batch
    logits = model(x)
    return volano.Loss(
        total=nn.functional.cross_entropy(logits, y, reduction="sum"),
        weight=len(y),
        metrics={"accuracy": (logits.argmax(1) == y).float().mean(), "size": float(len(y))},
    )


def augment(batch, generator):
    x, y = batch
    return x + 0.1 * torch.randn(x.shape, generator=generator), y


def make_task(model: Any = Net, objective: Any = objective, **fields: Any) -> volano.Task:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(44, 1, 4, 4, generator=generator), torch.arange(44) % 3
    base = {
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-2), "batch_size": 8,
        "duration": "3ep", "clip_norm": 0.5, "augment": augment, "ema_decay": 0.9,
        "valid": torch.utils.data.TensorDataset(x[:8], y[:8]),
    }  # fmt: skip
    base["data"] = torch.utils.data.TensorDataset(x, y)
    base["last_batch"] = "keep"
    return volano.Task(model=model, objective=objective, **{**base, **fields})


def weights(run):
    return torch.cat([value.double().flatten() for value in run.model.state_dict().values()])


def train(task, tmp_path, name, **knobs):
    return volano.train(
        task, plan=Plan.baseline("cpu").pin(**knobs), out=tmp_path / name,
        observer=volano.Observer(),
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["as_given", "fused"])
def test_the_weights_are_bitwise_those_of_eager_steps(recording, tmp_path, optimizer):  # noqa: F811
    task = make_task()
    eager = train(task, tmp_path, "eager", optimizer=optimizer)
    graphed = train(task, tmp_path, "graph", optimizer=optimizer, graph=True)
    assert torch.equal(weights(eager), weights(graphed))
    assert eager.metrics == graphed.metrics
    # One launch a step, but for the first and for each epoch's last, shorter one.
    assert (recording.num_recorded, recording.num_replays) == (1, task.num_steps - 1 - 3)
    assert not graphed.notices


def test_a_resumed_run_ends_at_the_same_weights(recording, tmp_path):  # noqa: F811
    whole = train(make_task(), tmp_path, "whole", graph=True)
    earlier = volano.train(
        make_task(), plan=Plan.baseline("cpu").pin(graph=True), out=tmp_path / "stopped",
        observer=_Stop(at=5),
    )  # fmt: skip
    resumed = volano.resume(earlier.path, task=make_task(), observer=volano.Observer())
    assert torch.equal(weights(whole), weights(resumed))


class _Stop(volano.Observer):
    def __init__(self, at):
        self.at = at

    def on_log(self, record):
        if record["step"] == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_loss_that_is_not_finite_is_found(recording, tmp_path):  # noqa: F811
    x = torch.ones(32, 4)
    x[20] = float("inf")
    data = torch.utils.data.TensorDataset(x, torch.zeros(32, dtype=torch.long))
    task = make_task(
        model=functools.partial(nn.Linear, 4, 3), data=data, augment=None, valid=None, seed=3
    )
    with pytest.raises(volano.VolanoError, match="finite"):
        train(task, tmp_path, "graph", graph=True)
    assert recording.num_recorded == 1


def _reads(model, batch):
    loss = model(batch[0]).square().mean()
    return loss * (1.0 if loss.item() > 0 else 0.5)


def _draws(model, batch):
    return model(batch[0]).square().mean() * random.random()


class Counts(Net):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Replaces(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean()
        return super().forward(x - self.mean)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"objective": _reads}, "cannot be recorded"),
        ({"objective": _draws}, "draws random numbers on the host"),
        ({"model": Counts}, "counts on the host"),
        ({"model": Replaces}, "new tensors"),
    ],
)
def test_what_cannot_be_recorded_is_eager(recording, tmp_path, fields, reason):  # noqa: F811
    eager = train(make_task(**fields), tmp_path, "eager")
    graphed = train(make_task(**fields), tmp_path, "graph", graph=True)
    assert torch.equal(weights(eager), weights(graphed))
    assert recording.num_replays == 0
    assert [notice for notice in graphed.notices if reason in notice]


def test_a_device_without_graphs_says_so(tmp_path):
    run = train(make_task(), tmp_path, "graph", graph=True)
    assert any("records none" in notice for notice in run.notices)


@pytest.mark.parametrize("knobs", [{"micro_batch": 4}, {"recompute": "blocks"}])
def test_what_acts_on_the_host_in_a_step_is_refused(recording, knobs):  # noqa: F811
    plan = Plan.baseline("cpu").pin(graph=True, **knobs)
    assert why_not_graph(plan, volano.Device("cpu"), are_several=False)
    assert why_not_graph(Plan.baseline("cpu"), volano.Device("cpu"), are_several=True)
