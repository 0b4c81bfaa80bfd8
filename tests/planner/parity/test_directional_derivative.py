"""The slope of the loss along the gradient is what the gradient says."""

import functools

import pytest
import torch
from torch import nn

from conftest import classification, make_mlp
from planner import faults
from volano import Plan
from volano.planner.parity.directional_derivative import slope_ratio
from volano.planner.parity.reference import Reference

BASELINE = Plan.baseline()


def ratio_of(task, plan=BASELINE):
    reference = Reference(task, seconds=0.0)
    with reference.kept(plan):
        return slope_ratio(reference.probe_batch, plan)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_one_for_a_right_gradient(make_task, dropout):
    task = make_task(model=functools.partial(make_mlp, dropout=dropout))
    assert ratio_of(task) == pytest.approx(1, abs=0.01)


def test_a_gradient_that_is_larger_than_the_slope_shows(make_task):
    # Those of the first layer are 1.2 times the right ones.
    model = functools.partial(faults.WrongGradient, lambda _: True)
    assert ratio_of(make_task(model=model)) < 0.95


def test_no_gradient_is_none_to_be_wrong(make_task):
    def constant(model, batch):
        return 0.0 * classification(model, batch)

    assert ratio_of(make_task(objective=constant)) == 1.0


def test_a_gradient_that_is_not_finite_has_no_ratio(make_task):
    class Infinite(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            return self.layer(x) * torch.full((10,), float("inf"))

    assert ratio_of(make_task(model=Infinite)) != ratio_of(make_task(model=Infinite))  # NaN


def test_parameters_that_are_not_used_do_not_count(make_task):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, x):
            return self.used(x)

    assert ratio_of(make_task(model=Idle)) == pytest.approx(1, abs=0.01)


def test_a_table_with_sparse_gradients(make_task):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(17, 8, sparse=True), nn.Linear(8, 10)

        def forward(self, x):
            return self.head(self.table((16 * x).long()).mean(1))

    task = make_task(model=Table, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    assert ratio_of(task) == pytest.approx(1, abs=0.01)
