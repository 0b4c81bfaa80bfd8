"""Optimizers, models and data of unusual kinds are trained, or refused with a remedy."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import volano
from volano import Loss, Plan
from volano.errors import ObjectiveError, TaskError, VolanoError, noted_caller


class NeedsClosure(torch.optim.SGD):
    """As of SAM: the signature does not say that it needs one."""

    def step(self, closure=None):
        assert closure is not None, "this optimizer requires a closure"


class CallsClosure(torch.optim.SGD):
    def step(self, closure=None):
        return closure()


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 10, dtype=torch.cfloat) * 0.1)

    def forward(self, x):
        return (x.to(torch.cfloat) @ self.weight).abs()


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        pass


def odd_metric(model, batch):
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")
    return Loss(total=loss, weight=len(batch[1]), metrics={"m": 1.0 if model.training else "bad"})


def detached(model, batch):
    return nn.functional.cross_entropy(model(batch[0]).detach(), batch[1])


def backward_itself(model, batch):
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    return loss


SGD = functools.partial(torch.optim.SGD, lr=0.1)
STEP = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1)
ARRAYS = (np.zeros((64, 8), np.float32), np.zeros(64, np.int64))
REFUSED = {
    "lbfgs": ({"optimizer": torch.optim.LBFGS}, TaskError, "LBFGS, which needs a closure"),
    "sam": ({"optimizer": functools.partial(NeedsClosure, lr=0.1)}, TaskError, "needs a closure"),
    "calls": ({"optimizer": functools.partial(CallsClosure, lr=0.1)}, TaskError, "a closure"),
    "lazy": ({"model": lambda: nn.LazyLinear(10)}, TaskError, "with lazy modules"),
    "scheduler": ({"schedule": STEP}, TaskError, "a scheduler of torch.optim"),
    "no multiplier": ({"schedule": lambda progress: None}, TaskError, "None at progress 0"),
    "no gradient": ({"objective": detached}, ObjectiveError, "one without a gradient"),
    "arrays": ({"data": ARRAYS}, TaskError, "two arrays of 64 examples.*TensorDataset"),
    "columns": ({"data": (ARRAYS[0], ARRAYS[0][:, :1])}, TaskError, "two arrays of 64 examples"),
    "rate": ({"optimizer": functools.partial(torch.optim.SGD, lr=-1)}, ValueError, "Invalid learn"),
    "no rate": ({"optimizer": WithoutRate}, TaskError, "rate that is a number; got lr=None"),
    "groups": ({"parameter_groups": lambda model: None}, TaskError, "a list of groups.*NoneType"),
    "metric": ({"objective": odd_metric}, ObjectiveError, r"metrics\['m'\] of type str"),
    "backward": ({"objective": backward_itself}, RuntimeError, "a second time"),
    "in place": ({"optimizer": functools.partial(SGD, differentiable=True)}, RuntimeError, "leaf"),
    "generator": ({"data": (i for i in range(9))}, TaskError, "volano.spool"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_with_a_remedy(make_task, quiet, tmp_path, name):
    fields, error, text = REFUSED[name]
    with pytest.raises(error, match=text) as caught:
        volano.train(
            make_task(**fields), plan=Plan.baseline(), out=tmp_path / "run", observer=quiet
        )
    # What torch or Python says of it is told with the function that did it.
    assert isinstance(caught.value, VolanoError) or "the task's " in noted_caller(caught.value)


def test_a_table_is_refused(make_task):
    class Table:
        iloc = None

        def __len__(self):
            return 64

        def __getitem__(self, column):
            raise KeyError(column)

    with pytest.raises(TaskError, match="a table, Table, whose indices are columns"):
        make_task(data=Table())


@pytest.mark.parametrize("plan", [None, Plan.baseline()])
def test_complex_parameters_are_trained(make_task, quiet, tmp_path, plan):
    run = volano.train(
        make_task(model=Complex, optimizer=SGD), plan=plan, out=tmp_path / "run", observer=quiet
    )
    assert run.status == "finished"


class TwoWeights(torch.optim.SGD):
    """Keeps weights for evaluation that lie one above those of training."""

    offset = 0.0

    def _move(self, offset):
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter += offset - self.offset
        self.offset = offset

    def train(self):
        self._move(0.0)

    def eval(self):
        self._move(1.0)

    def step(self, closure=None):
        assert self.offset == 0.0
        return super().step(closure)


def test_an_optimizer_with_modes_is_in_the_right_one(make_task, quiet, tmp_path):
    def weights(optimizer):
        task = make_task(optimizer=functools.partial(optimizer, lr=0.5))
        run = volano.train(
            task, plan=Plan.baseline(), out=tmp_path / optimizer.__name__, observer=quiet
        )
        return list(run.model.parameters())

    for plain, moved in zip(weights(torch.optim.SGD), weights(TwoWeights), strict=True):
        torch.testing.assert_close(moved, plain + 1.0, rtol=1e-3, atol=1e-3)
