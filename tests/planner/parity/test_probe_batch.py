"""The batch on which plans are compared is one of a run."""

import functools

import torch
from torch import nn

import volano
from conftest import classification, make_mlp
from volano import Plan
from volano.device import Device
from volano.planner.parity.probe_batch import gradient_of, switch_off_dropout, take_probe_batch
from volano.planner.parity.reference import Reference

BASELINE = Plan.baseline()
CPU = Device("cpu")


def test_a_cut_batch_has_a_task_of_its_size(make_task):
    whole = take_probe_batch(make_task(clip_norm=1.0, ema_decay=0.9), CPU)
    assert whole.cut(32) is whole
    few = whole.cut(8)
    assert (few.size, few.task.batch_size, few.full_size) == (8, 8, 32)
    assert torch.equal(few.batch[0], whole.batch[0][:8])
    assert (few.task.clip_norm, few.task.ema_decay, few.task.valid) == (1.0, None, None)
    assert few.source.ema_decay == 0.9


def test_unlike_examples_are_as_many_as_asked_for(make_task):
    whole = take_probe_batch(make_task(), CPU)
    assert whole.most_unlike(32) is whole
    assert whole.most_unlike(6).size == 6


class TestGradientOf:
    def test_parts_give_the_gradient_of_the_whole(self, make_task):
        probe = take_probe_batch(make_task(), CPU)
        halves = [tuple(t[:16] for t in probe.batch), tuple(t[16:] for t in probe.batch)]
        whole, parts = (
            gradient_of(probe, CPU, batches, torch.enable_grad(), dtype=torch.float64)
            for batches in ([probe.batch], halves)
        )
        assert whole.weight == parts.weight == 32
        assert abs(whole.loss - parts.loss) < 1e-12
        for name, value in whole.gradients.items():
            assert (parts.gradients[name] - value).norm() < 1e-12

    def test_the_same_numbers_move_the_weights_each_time(self, make_task):
        probe = take_probe_batch(make_task(), CPU)
        plain, nudged, again = (
            gradient_of(probe, CPU, [probe.batch], torch.enable_grad(), nudged=nudged)
            for nudged in (False, True, True)
        )
        assert plain.moved == {}
        assert nudged.loss == again.loss != plain.loss
        assert not any(value.any() for value in nudged.moved.values())  # by the pass itself

    def test_dropout_can_be_left_out(self, make_task):
        dropping = take_probe_batch(make_task(model=functools.partial(make_mlp, dropout=0.5)), CPU)
        plain = take_probe_batch(make_task(), CPU)
        losses = [
            gradient_of(probe, CPU, [probe.batch], torch.enable_grad(), dropout=dropout).loss
            for probe, dropout in ((dropping, True), (dropping, False), (plain, True))
        ]
        assert losses[0] != losses[1] == losses[2]

    def test_a_parameter_that_is_not_used_has_no_gradient(self, make_task):
        class Idle(nn.Module):
            def __init__(self):
                super().__init__()
                self.used, self.idle = nn.Linear(64, 10), nn.Linear(2, 2)

            def forward(self, x):
                return self.used(x)

        probe = take_probe_batch(make_task(model=Idle), CPU)
        found = gradient_of(probe, CPU, [probe.batch], torch.enable_grad()).gradients
        assert [name for name, value in found.items() if value is None] == [
            "idle.weight",
            "idle.bias",
        ]


def test_dropout_within_layers_is_switched_off():
    model = nn.Sequential(
        nn.Dropout2d(0.3), nn.LSTM(4, 4, 2, dropout=0.2), nn.MultiheadAttention(4, 2, dropout=0.1)
    )
    switch_off_dropout(model)
    assert (model[0].p, model[1].dropout, model[2].dropout) == (0.0, 0.0, 0.0)
    assert model.training


def test_the_specimen_is_the_batch_of_a_run(make_task):
    seen = []

    def augment(batch, generator):
        return batch[0] + torch.rand(len(batch[0]), 1, generator=generator), batch[1]

    def objective(model, batch):
        seen.append(batch)
        return classification(model, batch)

    task = make_task(augment=augment, objective=objective)
    session = volano.training.Session(task, volano.Plan.baseline(), on_notice=lambda _: None)
    for step, batch in enumerate(session.feed.batches(session.order.keys(0, 2))):
        session.step_once(batch, step)
    for step in range(2):
        probe_batch = take_probe_batch(task, volano.device.Device("cpu"), step=step)
        assert torch.equal(probe_batch.batch[0], seen[step][0])
        assert torch.equal(probe_batch.batch[1], seen[step][1])
        assert probe_batch.task.num_steps == task.num_steps


def test_a_micro_batch_is_the_same_share_of_a_cut_batch(make_task):
    probe_batch = Reference(make_task()).probe_batch.cut(8)
    assert [
        probe_batch.fitted(BASELINE.pin(micro_batch=size)).micro_batch for size in (1, 16, 24, 31)
    ] == [1, 4, 6, 7]
