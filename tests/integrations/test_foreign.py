"""What the integrations share."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from volano.errors import TaskError
from volano.integrations.foreign import refuse_hooks, set_of, tabulated
from volano.task import progress_at

DATA = TensorDataset(torch.zeros(10, 2))


def optimizer():
    net = nn.Linear(2, 2)
    return torch.optim.SGD([{"params": net.weight, "lr": 0.2}, {"params": net.bias}], lr=0.1)


def test_a_scheduler_becomes_a_table():
    own = optimizer()
    table = tabulated(own, lr_scheduler.StepLR(own, 2, gamma=0.5), 6)
    assert [table(progress_at(s, 6)) for s in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    own = optimizer()
    table = tabulated(own, lr_scheduler.ExponentialLR(own, 0.5), 4, interval=2)
    assert table.multipliers == (1, 1, 0.5, 0.5)
    assert table(1.0) == 0.5


def test_schedules_that_depend_on_more_are_refused():
    own = optimizer()
    with pytest.raises(TaskError, match="ReduceLROnPlateau"):
        tabulated(own, lr_scheduler.ReduceLROnPlateau(own), 3)
    own = optimizer()
    two = lr_scheduler.LambdaLR(own, [lambda s: 1.0, lambda s: 0.9**s])
    with pytest.raises(TaskError, match="all parameter groups alike"):
        tabulated(own, two, 3)


def test_loaders_say_what_a_task_says():
    found = set_of(DataLoader(DATA, 4, shuffle=True), is_training=True)
    assert (found["batch_size"], found["last_batch"]) == (4, "keep")
    assert set_of(DataLoader(DATA, 4), is_training=False)["data"] is DATA


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (DataLoader(DATA, 4), "SequentialSampler"),
        (DataLoader(DATA, 4, sampler=WeightedRandomSampler([1.0] * 10, 10)), "WeightedRandom"),
        (DataLoader(DATA, None), "NoneType"),
        ([1, 2], "list"),
    ],
)
def test_orders_that_a_task_does_not_have_are_refused(loader, words):
    with pytest.raises(TaskError, match=words):
        set_of(loader, is_training=True)


def test_refusals_name_the_hook_and_what_to_do():
    with pytest.raises(TaskError, match=r"Net.on_fit and after.*leave_out=\['on_fit', 'after'\]"):
        refuse_hooks(["on_fit", "after"], (), "Net")
    refuse_hooks(["on_fit"], ["on_fit"], "Net")
