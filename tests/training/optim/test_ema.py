"""An average of the weights, against the recurrence."""

import functools

import torch
from torch import nn

from volano import Plan
from volano.training import Session
from volano.training.optim.ema import Ema


def test_an_average_of_the_weights(make_task):
    weights = []
    task = make_task(
        ema_decay=0.9, duration="8st", optimizer=functools.partial(torch.optim.SGD, lr=0.5)
    )
    live = Session(task, Plan.baseline(), on_notice=lambda _: None)
    initial = live.model[0].weight.detach().clone()
    for step, batch in enumerate(live.feed.batches(live.order.keys(0, 8))):
        live.step_once(batch, step)
        weights.append(live.model[0].weight.detach().clone())
    expected = initial
    for step, value in enumerate(weights):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(live.kept_model[0].weight, expected)
    assert not torch.equal(live.kept_model[0].weight, live.model[0].weight)


def test_tied_weights_are_averaged_once(make_task):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(3, 3, bias=False)
            self.two = nn.Linear(3, 3, bias=False)
            self.two.weight = self.one.weight

    model = Tied()
    nn.init.zeros_(model.one.weight)
    ema = Ema(model, 0.5)
    nn.init.ones_(model.one.weight)
    ema.update(1000)
    assert torch.equal(ema.model.two.weight, torch.full((3, 3), 0.5))


def test_statistics_are_averaged_and_counts_are_copied():
    norm = nn.BatchNorm1d(2)
    ema = Ema(norm, 0.5)
    norm.running_mean.fill_(4.0)
    norm.num_batches_tracked.fill_(7)
    ema.update(1000)
    assert ema.model.running_mean.tolist() == [2.0, 2.0]
    assert ema.model.num_batches_tracked == 7


def test_early_in_a_run_the_decay_is_held_down():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    ema = Ema(layer, 0.99)
    nn.init.ones_(layer.weight)
    ema.update(0)
    torch.testing.assert_close(ema.model.weight.detach(), torch.tensor([[0.9]]))  # 1 - 1 / 10


def test_a_buffer_of_another_shape_begins_anew():
    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.register_buffer("seen", torch.zeros(1))

    model = Grows()
    ema = Ema(model, 0.5)
    model.seen = torch.ones(3)
    ema.update(1000)
    assert ema.model.seen.tolist() == [1.0, 1.0, 1.0]
    model.seen = torch.full((3,), 3.0)
    ema.update(1000)
    assert ema.model.seen.tolist() == [2.0, 2.0, 2.0]


def test_the_average_takes_no_gradient():
    layer = nn.Linear(2, 2)
    ema = Ema(layer, 0.9)
    assert all(parameter.requires_grad for parameter in layer.parameters())
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
