"""Buffers are followed where a forward pass puts other tensors in their places, and what is not
copied is watched."""

import functools

import pytest
import torch
from torch import nn

from conftest import classification
from volano import Plan
from volano.errors import RunError
from volano.training import Session
from volano.training.memory import buffers
from volano.training.memory.buffers import SavedBuffers, places_of
from volano.training.optim.ema import Ema


class Centred(nn.Module):
    """Subtracts a running mean; how it is kept is the question."""

    def __init__(self, keep):
        super().__init__()
        self.head, self.keep = nn.Linear(64, 10), keep
        self.frozen = nn.Linear(64, 64).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(64))
        self.register_buffer("large", torch.zeros(64, 64))
        self.register_buffer("late", None)

    def forward(self, x):
        if self.training:
            self.keep(self, x.detach().mean(0))
        return self.head(x - self.mean - self.large[0] - 0.01 * self.frozen(x))


def reassigned(model, mean):
    """The usual way of those who do not write in place."""
    model.mean = 0.9 * model.mean + 0.1 * mean
    model.large = model.large + 0.01 * mean
    model.late = mean if model.late is None else model.late + mean


def behind(model, mean):
    """No version is counted."""
    model.large.data.mul_(0.9).add_(0.1 * mean)


def teacher(model, mean):
    """Frozen, and moved all the same."""
    with torch.no_grad():
        model.frozen.weight.add_(mean)


def teacher_behind(model, mean):
    """Neither is counted here."""
    model.frozen.weight.data.add_(mean)


class FailsOnce:
    """Runs out of memory in one call, after the forward pass."""

    def __init__(self, call):
        self.call, self.calls = call, 0

    def __call__(self, model, batch):
        loss = classification(model, batch)
        self.calls += 1
        if self.calls == self.call:
            raise torch.OutOfMemoryError("none left")
        return loss


def trained(task, *, steps=4, may_split=True, **arguments):
    session = Session(
        task, Plan.baseline(), on_notice=lambda _: None, may_split=may_split, **arguments
    )
    session.step_once.on_relief = lambda *_: None
    for batch in session.feed.batches(session.order.keys(0, steps)):
        session.step_once(batch, session.step)
        session.step += 1
    return session


def test_the_average_takes_in_what_stands_there_now(make_task):
    session = trained(make_task(model=functools.partial(Centred, reassigned), ema_decay=0.5))
    # Without memory the average is what it averages.
    at_once = Ema(session.model, 0.0)
    reassigned(session.model, torch.ones(64))
    at_once.update(100)
    for name, value in session.model.state_dict().items():
        assert torch.equal(at_once.model.state_dict()[name], value), name
    assert session.state.ema.model.mean.abs().sum() > 0
    assert session.state.ema.model.late is not None


@pytest.mark.parametrize("call", [1, 3])
def test_a_repeated_step_begins_with_the_tensors_that_stood_there(make_task, call):
    class Small(FailsOnce):
        """In halves the mean moves twice, in a step that fails not at all."""

        def __call__(self, model, batch):
            model.train(len(batch[0]) == 32)
            return super().__call__(model, batch)

    fields = {"model": functools.partial(Centred, reassigned)}
    found = trained(make_task(objective=Small(call), **fields), steps=call)
    expected = trained(make_task(objective=Small(0), **fields), steps=call - 1)
    for name in ("mean", "large", "late"):
        ours, theirs = getattr(found.model, name), getattr(expected.model, name)
        assert ours is theirs is None or torch.equal(ours, theirs), name


@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("keep", [behind, teacher, teacher_behind])
def test_what_cannot_be_put_back_is_not_repeated(make_task, keep, call):
    task = make_task(model=functools.partial(Centred, keep), objective=FailsOnce(call))
    with pytest.raises(RunError, match="leaves its inputs unchanged; got a buffer or a parameter"):
        trained(task)


def test_a_bad_step_leaves_no_trace_in_them(make_task):
    def objective(model, batch):
        inputs, labels = batch
        calls.append(1)
        return classification(model, (inputs * float("nan") if len(calls) == 3 else inputs, labels))

    calls: list[int] = []
    session = trained(
        make_task(model=functools.partial(Centred, reassigned), objective=objective), may_skip=True
    )
    assert len(calls) == 4
    for name, value in session.model.state_dict().items():
        assert value.isfinite().all(), name


def test_buffers_of_several_types_are_copied_type_by_type(monkeypatch):
    model, copied = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)), []
    copy = buffers.foreach_copy_
    monkeypatch.setattr(
        buffers,
        "foreach_copy_",
        lambda ours, theirs: copied.append({t.dtype for t in theirs}) or copy(ours, theirs),
    )
    saved = SavedBuffers(places_of(model))
    saved.save()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.rand(4, 3))
    saved.put_back()
    assert copied == [{torch.float32}, {torch.int64}] * 2
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
