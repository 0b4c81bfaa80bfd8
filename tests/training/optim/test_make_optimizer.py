"""A task's optimizer, with the implementation that the plan names."""

import functools

import pytest
import torch
from torch import nn

from training.tasks import full_task
from volano import Plan
from volano.device import Device
from volano.errors import TaskError
from volano.training import Session
from volano.training.optim.make_optimizer import (
    choose_implementation,
    left_out,
    make_again,
    make_optimizer,
    set_implementation,
    set_learning_rates,
    with_own_marks,
)


def session(task, plan=None):
    notices = []
    made = Session(task, plan or Plan.baseline(), on_notice=notices.append)
    made.notices = notices
    return made


class TestImplementations:
    def test_fused_is_applied_where_the_class_has_it(self, make_task):
        made = session(make_task(), Plan.baseline().pin(optimizer="fused"))
        assert made.optimizer.param_groups[0]["fused"] is True
        assert made.notices == []

    def test_the_users_choice_stands_and_is_said(self, make_task):
        task = make_task(optimizer=functools.partial(torch.optim.AdamW, lr=1e-3, foreach=True))
        made = session(task, Plan.baseline().pin(optimizer="fused"))
        assert made.optimizer.param_groups[0]["fused"] is None
        assert "that stands" in made.notices[0]

    def test_a_class_without_it_runs_as_given_and_it_is_said(self, make_task):
        made = session(
            make_task(optimizer=functools.partial(torch.optim.Adamax, lr=1e-3)),
            Plan.baseline().pin(optimizer="fused"),
        )
        assert "Adamax has no fused implementation" in made.notices[0]


def test_a_model_without_parameters(make_task):
    with pytest.raises(TaskError, match="must have parameters to train; got ReLU"):
        session(make_task(model=nn.ReLU))
    frozen = nn.Linear(2, 3).requires_grad_(False)
    with pytest.raises(TaskError, match="All 9 are frozen: leave its head"):
        make_optimizer(make_task(), frozen)


def test_an_optimizer_that_is_none(make_task):
    with pytest.raises(TaskError, match="return a torch.optim.Optimizer; got list"):
        session(make_task(optimizer=list))


@pytest.mark.parametrize("now", ["as_given", "foreach", "fused"])
@pytest.mark.parametrize("then", ["as_given", "foreach", "fused"])
def test_the_implementation_of_the_optimizer_is_that_of_the_plan(make_task, tmp_path, then, now):
    def session_of(implementation):
        plan = Plan.baseline().pin(optimizer=implementation)
        session = Session(full_task(make_task), plan, on_notice=lambda _: None)
        return session, [
            (group["foreach"], group["fused"]) for group in session.optimizer.param_groups
        ]

    earlier, _ = session_of(then)
    for step, batch in enumerate(earlier.feed.batches(earlier.order.keys(0, 2))):
        earlier.step_once(batch, step)
    session, marks = session_of(now)
    session.load_state_dict(earlier.state_dict(), earlier.description, tmp_path)
    assert [(group["foreach"], group["fused"]) for group in session.optimizer.param_groups] == marks
    for batch in session.feed.batches(session.order.keys(2, 3)):
        session.step_once(batch, 2)


@pytest.mark.parametrize(
    ("optimizer", "model", "reason"),
    [
        (functools.partial(torch.optim.SGD, lr=0.1, maximize=True), None, "maximizes"),
        (
            functools.partial(torch.optim.SGD, lr=0.1),
            lambda: nn.Embedding(64, 10, sparse=True),
            "sparse gradients, which a foreach SGD",
        ),
        (functools.partial(torch.optim.SGD, lr=0.1, foreach=False), None, "that stands"),
    ],
)
def test_why_an_implementation_is_not_applied(make_task, optimizer, model, reason):
    task = make_task(optimizer=optimizer)
    module = nn.Linear(2, 2) if model is None else model()
    made = make_optimizer(task, module)
    before = [dict(group) for group in made.param_groups]
    plan = Plan.baseline().pin(optimizer="foreach")
    assert reason in choose_implementation(made, module, plan, Device("cpu"))
    assert [group["foreach"] for group in made.param_groups] == [g["foreach"] for g in before]


def test_groups_keep_their_own_initial_rates(make_task):
    def groups(model):
        return [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}]

    made = make_optimizer(make_task(parameter_groups=groups), nn.Linear(2, 2))
    assert [group["initial_lr"] for group in made.param_groups] == [0.5, 0.1]
    set_learning_rates(made, 0.1)
    set_learning_rates(made, 0.5)
    assert [group["lr"] for group in made.param_groups] == [0.25, 0.05]


def test_a_rate_that_is_a_tensor_stays_that_tensor(make_task):
    optimizer = functools.partial(torch.optim.Adam, lr=torch.tensor(0.5), capturable=False)
    made = make_optimizer(make_task(optimizer=optimizer), nn.Linear(2, 2))
    (group,) = made.param_groups
    rate = group["lr"]
    set_learning_rates(made, 0.5)
    assert group["lr"] is rate
    assert float(rate) == 0.25
    assert float(group["initial_lr"]) == 0.5


def test_a_saved_state_takes_the_marks_of_here():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, foreach=True)
    saved = {"state": {}, "param_groups": [{"lr": 0.3, "foreach": None, "fused": True}]}
    (group,) = with_own_marks(saved, optimizer)["param_groups"]
    assert (group["lr"], group["foreach"], group["fused"]) == (0.3, True, None)
    assert saved["param_groups"][0]["fused"] is True


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
        model=model, parameter_groups=lambda net: [{"params": [net[0].weight, net[1].bias]}]
    )
    heard = []
    Session(task, Plan.baseline(), on_notice=heard.append)
    assert heard == [
        "1 trainable parameters are in no group of the optimizer and stay as they are: 1.weight"
    ]


@pytest.mark.parametrize(("wanted", "looks_itself"), [("fused", True), ("foreach", False)])
def test_a_fused_step_looks_at_the_scalers_flag_itself(wanted, looks_itself):
    """Else a GradScaler reads the flag on the host at each step."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))])
    set_implementation(optimizer, wanted)
    assert getattr(optimizer, "_step_supports_amp_scaling", False) == looks_itself


def test_an_optimizer_is_made_again_for_other_parameters():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    first = torch.optim.SGD(
        [{"params": one.weight, "lr": 0.5}, {"params": one.bias}], lr=0.1, momentum=0.9
    )
    groups = [{**first.param_groups[0], "params": [other.weight], "initial_lr": 9.0}]
    again = make_again(first, groups)
    assert type(again) is torch.optim.SGD
    assert again.param_groups[0]["params"][0] is other.weight
    assert (again.param_groups[0]["lr"], again.defaults["momentum"]) == (0.5, 0.9)
    assert "initial_lr" not in again.param_groups[0]
