"""Which tasks share a program, which numbers vary in it, and that a copy with other numbers is what
a member has."""

from __future__ import annotations

import copy
import datetime
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from packing.structure.tasks import BATCH, DATA, grouped, plain_objective, plain_task
from volano import Task
from volano.training import Session


def chain(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules)


def _noisy(batch: Any, generator: torch.Generator, *, strength: float) -> Any:
    return (batch[0] + strength * torch.randn(batch[0].shape, generator=generator), batch[1])


def test_numbers_of_an_augmentation_vary() -> None:
    tasks = [
        plain_task(augment=functools.partial(_noisy, strength=strength)) for strength in (0.1, 0.2)
    ]
    (group,) = grouped(*tasks)
    assert [(slot.where, slot.values) for slot in group.varying.slots] == [
        ("augment.strength", (0.1, 0.2))
    ]


class Gate(nn.Module):
    """A module of one's own: numbers in an attribute and in a list."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha, self.scales = alpha, [1.0, alpha]
        self.drop = nn.Dropout(alpha / 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.drop(inputs * self.alpha + self.scales[1])


def test_numbers_of_modules_are_set_and_put_back() -> None:
    def gated(alpha: float) -> Task:
        return plain_task(model=lambda: nn.Sequential(nn.Linear(6, 3), Gate(alpha)))

    tasks = [gated(0.5), gated(0.25)]
    (group,) = grouped(*tasks)
    assert {slot.where: slot.values for slot in group.varying.slots} == {
        "model.1.alpha": (0.5, 0.25),
        "model.1.scales[1]": (0.5, 0.25),
        "model.1.drop.p": (0.25, 0.125),
    }
    ours, theirs = Session.make_model(tasks[0]), Session.make_model(tasks[1])
    before = ours[1].scales
    with group.varying.in_model(ours, group.varying.of(1)):
        torch.manual_seed(0)
        mine = ours(BATCH[0])
    torch.manual_seed(0)
    assert torch.equal(mine, theirs(BATCH[0]))
    assert ours[1].scales is before
    assert (ours[1].alpha, before, ours[1].drop.p) == (0.5, [1.0, 0.5], 0.25)


def test_a_model_gets_its_numbers_back_after_an_error() -> None:
    tasks = [
        plain_task(model=lambda p=p: nn.Sequential(nn.Linear(6, 3), nn.Dropout(p)))
        for p in (0.1, 0.2)
    ]
    (group,) = grouped(*tasks)
    model = Session.make_model(tasks[0])
    wrong = torch.zeros(2, 7)
    with (
        pytest.raises(RuntimeError, match="shapes"),
        group.varying.in_model(model, {"model.1.p": 0.7}),
    ):
        model(wrong)
    assert model[1].p == 0.1


MODELS: dict[str, Callable[[], nn.Module]] = {
    "recurrent": lambda: nn.LSTM(6, 3, num_layers=2),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, batch_first=True),
    "normalized": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.LayerNorm(4)),
    "parametrized": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_other_weights_are_alike(name: str) -> None:
    (group,) = grouped(*(plain_task(model=MODELS[name], seed=seed) for seed in range(3)))
    assert group.varying.slots == ()


def _tied(*, tie: bool) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3))
        if tie:
            model[1].weight = model[0].weight
        return model

    return make


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.1), nn.Linear(5, 3))
    model[0].bias.requires_grad_(False)
    return model


def _counting(count: Any) -> Callable[..., Any]:
    return lambda model, batch: plain_objective(model, batch) * count


def _holding(value: Any) -> Callable[..., Any]:
    return lambda model, batch: plain_objective(model, batch) + (0.0 if value is None else 1.0)


class Sealed:
    """Cannot be looked into: its memory is laid out by another class."""

    def __init__(self) -> None:
        self.generator = torch.Generator()


SPLITS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "batch_size": ({}, {"batch_size": 12}, ("batch_size: 8, 12",)),
    "duration": ({}, {"duration": "7st"}, ("num_steps: 6, 7",)),
    "last_batch": ({}, {"last_batch": "keep"}, ("last_batch: drop, keep",)),
    "evaluation": (
        {"valid": DATA, "evaluate_every": "2st"},
        {"valid": DATA, "evaluate_every": "3st"},
        ("evaluation_interval: 2, 3",),
    ),
    "ema": ({}, {"ema_decay": 0.9}, ("ema_decay: none, given",)),
    "width": (
        {"model": lambda: nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))},
        {"model": lambda: nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3))},
        ("model.0.out_features: 4, 9", "model.1.in_features: 4, 9"),
    ),
    "activation": (
        {"model": lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU())},
        {"model": lambda: nn.Sequential(nn.Linear(6, 3), nn.GELU())},
        ("model.1: ReLU, GELU",),
    ),
    "depth": (
        {"model": lambda: nn.Sequential(nn.Linear(6, 3))},
        {"model": lambda: nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3))},
        ("model's modules: , 0, 1",),
    ),
    "tying": (
        {"model": _tied(tie=True)},
        {"model": _tied(tie=False)},
        ("model.1.weight: tied to 0.weight, tied to 1.weight",),
    ),
    "frozen": ({}, {"model": _frozen}, ("model.0.bias: requires_grad=True, requires_grad=False",)),
    "dtype": (
        {"model": lambda: nn.Sequential(nn.Linear(6, 3))},
        {"model": lambda: nn.Sequential(nn.Linear(6, 3)).double()},
        (
            "model.0.weight: torch.float32, torch.float64",
            "model.0.bias: torch.float32, torch.float64",
        ),
    ),
    "whole number of a module": (
        {"model": lambda: chain(nn.Unflatten(1, (2, 3)), nn.Flatten(1, 2), nn.Linear(6, 3))},
        {"model": lambda: chain(nn.Unflatten(1, (2, 3)), nn.Flatten(1, -1), nn.Linear(6, 3))},
        ("model.1.end_dim: 2, -1",),
    ),
    "truth": (
        {"objective": _counting(True)},
        {"objective": _counting(False)},
        ("objective.count: True, False",),
    ),
    "None": (
        {"objective": _holding(None)},
        {"objective": _holding("x")},
        ("objective.value: None, 'x'",),
    ),
    "tensor": (
        {"objective": _holding(torch.zeros(2))},
        {"objective": _holding(torch.ones(2))},
        ("objective.value: tensor [2] float32, other values",),
    ),
    "tensor that is trained": (
        {"objective": _holding(torch.zeros(2, requires_grad=True))},
        {"objective": _holding(torch.zeros(2, requires_grad=True))},
        ("objective.value: a tensor with a gradient, another one",),
    ),
    "not to be compared": (
        {"objective": _holding(Sealed())},
        {"objective": _holding(Sealed())},
        ("objective.value.generator: Generator, which cannot be compared, another Generator",),
    ),
    "number of NumPy's": (
        {"objective": _holding(np.float32(1))},
        {"objective": _holding(np.float32(2))},
        ("objective.value: 1.0, 2.0",),
    ),
    "class": (
        {"objective": _holding(nn.ReLU)},
        {"objective": _holding(nn.GELU)},
        ("objective.value: ReLU, GELU",),
    ),
    "moment": (
        {"objective": _holding(datetime.datetime(2024, 1, 1))},
        {"objective": _holding(datetime.datetime(2024, 1, 2))},
        ("objective.value: datetime, which cannot be compared, another datetime",),
    ),
    "number in collate": (
        {"collate": functools.partial(_noisy, strength=0.1)},
        {"collate": functools.partial(_noisy, strength=0.2)},
        ("collate.strength: 0.1, 0.2",),
    ),
    "rows of the data": (
        {"data": Subset(DATA, range(8))},
        {"data": Subset(DATA, range(4, 12))},
        ("data.indices: range(0, 8), range(4, 12)",),
    ),
    "optimizer": ({}, {"optimizer": torch.optim.AdamW}, ("optimizer class: SGD, AdamW",)),
    "flag of the optimizer": (
        {"optimizer": functools.partial(torch.optim.SGD, momentum=0.9)},
        {"optimizer": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True)},
        ("optimizer nesterov: False, True",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITS)
def test_what_splits_says_why(name: str) -> None:
    one, other, words = SPLITS[name]
    groups = grouped(plain_task(**one), plain_task(**other), plain_task(**one))
    assert [group.indices for group in groups] == ([(0, 2), (1,)])
    assert groups[0].reasons == words


def test_steps_that_follow_from_the_batch_size_are_no_reason_of_their_own() -> None:
    one, other = ({"batch_size": size, "duration": "4ep"} for size in (4, 8))
    assert grouped(plain_task(**one), plain_task(**other))[0].reasons == ("batch_size: 4, 8",)
    longer = grouped(plain_task(**one), plain_task(**{**other, "duration": "6ep"}))
    assert [reason.split(":")[0] for reason in longer[0].reasons] == ["batch_size", "num_steps"]


def test_code_splits() -> None:
    objectives = [
        lambda model, batch: plain_objective(model, batch),
        lambda model, batch: -plain_objective(model, batch),
    ]
    groups = grouped(*(plain_task(objective=objective) for objective in objectives))
    assert [group.indices for group in groups] == [(0,), (1,)]
    assert groups[0].reasons[0].startswith("objective: the code of <lambda> (line ")


def test_a_number_in_the_code_of_a_local_class_splits() -> None:
    def task(factor: float) -> Task:
        class Scaled(nn.Linear):
            def forward(self, inputs: Tensor) -> Tensor:
                return super().forward(inputs) * factor

        return plain_task(model=lambda: Scaled(6, 3))

    first, second = task(0.5), task(0.25)
    groups = grouped(first, second)
    assert [group.indices for group in groups] == [(0,), (1,)]
    assert groups[1].reasons[0].startswith("model: a test_a_number_in_the_code")


def test_what_the_host_handles_per_member_does_not_split() -> None:
    tasks = [
        plain_task(
            seed=1,
            data_seed=5,
            clip_norm=1.0,
            optimizer=functools.partial(torch.optim.SGD, lr=1, momentum=0.9),
        ),
        plain_task(
            seed=2, data_seed=6, optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.8)
        ),
    ]
    assert len(grouped(*tasks)) == 1


def test_data_of_the_same_content_is_the_same_data() -> None:
    copied, changed = copy.deepcopy(DATA), copy.deepcopy(DATA)
    changed.tensors[0][1, 0] += 1  # a row that a digest of a few rows would not see
    groups = grouped(*(plain_task(data=data) for data in (DATA, copied, changed)))
    assert [group.indices for group in groups] == [(0, 1), (2,)]
    assert groups[0].reasons == ("data.tensors[0]: tensor [24, 6] float32, other values",)


def test_an_object_is_alike_itself_though_it_cannot_be_compared() -> None:
    sealed = Sealed()
    assert len(grouped(*(plain_task(objective=_holding(sealed)) for _ in range(2)))) == 1


def test_reasons_are_few_and_short() -> None:
    groups = grouped(*(plain_task(objective=_counting(f"word {count}")) for count in range(12)))
    assert len(groups) == 12
    assert groups[0].reasons == (
        "objective.count: 'word 0', 'word 1', 'word 2', 'word 3', 'word 4', …",
    )


def test_whole_numbers_of_an_objective_vary() -> None:
    (group,) = grouped(*(plain_task(objective=_counting(count)) for count in (1, 2)))
    assert [(slot.where, slot.values) for slot in group.varying.slots] == [
        ("objective.count", (1.0, 2.0))
    ]
