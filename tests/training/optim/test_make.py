"""Which parameters an optimizer gets, and what is said of those that it leaves out."""

import torch
from torch import nn

from volano.plan import Plan
from volano.training import Session
from volano.training.optim.make import left_out


def two_comprehensions(params):
    """As written in many a script: weights decay, biases do not."""
    matrices = [p for p in params if p.ndim > 1]
    vectors = [p for p in params if p.ndim <= 1]
    return torch.optim.SGD([{"params": matrices}, {"params": vectors, "weight_decay": 0}], lr=0.1)


def test_parameters_can_be_gone_through_twice(make_task):
    session = Session(make_task(optimizer=two_comprehensions), Plan.baseline())
    assert left_out(session.optimizer, session.model) == []
    assert [len(group["params"]) for group in session.optimizer.param_groups] == [2, 2]


def test_what_no_group_holds_is_said(make_task):
    def model():
        net = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 10))
        net[0].bias.requires_grad_(False)  # frozen: left out by whoever made it
        return net

    task = make_task(
        model=model,
        parameter_groups=lambda net: [{"params": [net[0].weight, net[1].bias]}],
    )
    heard = []
    Session(task, Plan.baseline(), on_notice=heard.append)
    assert heard == [
        "1 trainable parameters are in no group of the optimizer and stay as they are: 1.weight"
    ]
