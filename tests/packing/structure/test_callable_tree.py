"""What callables carry: a copy with other numbers is what a member has, and what is not known is
not opened up."""

from __future__ import annotations

import dataclasses
import functools
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packing.structure.tasks import BATCH, grouped, plain_objective, plain_task
from volano.packing.structure.callable_tree import Comparison, parts_of, text_of, with_numbers
from volano.training import Session

# Objectives that hold a number in every way that a person may write it.


def in_closure(number: float) -> Callable[..., Any]:
    def weighted(loss: Tensor) -> Tensor:
        return loss * (1.0 + number)

    def objective(model: nn.Module, batch: Any, *, floor: float = number / 3) -> Tensor:
        return weighted(plain_objective(model, batch)) + floor

    return objective


def _scaled(model: nn.Module, batch: Any, scale: float, *, shift: float) -> Tensor:
    return plain_objective(model, batch) * scale + shift


def in_partial(number: float) -> Callable[..., Any]:
    return functools.partial(functools.partial(_scaled, scale=number + 1), shift=number)


@dataclasses.dataclass(frozen=True)
class Settings:
    weights: tuple[float, ...]
    name: str = "settings"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InDataclass:
    settings: Settings
    by_name: dict[str, list[float]]

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return plain_objective(model, batch) * self.settings.weights[1] + self.by_name["shift"][0]


def in_dataclass(number: float) -> Callable[..., Any]:
    return InDataclass(
        settings=Settings(weights=(1.0, number + 1)), by_name={"shift": [number, 2.0]}
    )


class Objectives:
    def __init__(self, number: float) -> None:
        self.number = number
        self.loss = nn.CrossEntropyLoss(label_smoothing=number)

    def compute(self, model: nn.Module, batch: Any) -> Tensor:
        return self.loss(model(batch[0]), batch[1]) + self.number

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.compute(model, batch)


def in_method(number: float) -> Callable[..., Any]:
    return Objectives(number).compute


Weights = namedtuple("Weights", "first second")


def in_named_tuple(number: float) -> Callable[..., Any]:
    weights, limits = Weights(1.0, number), np.array([1.0, 2.0])
    return lambda model, batch: plain_objective(model, batch) * weights.second + float(limits[0])


MAKERS = [in_closure, in_partial, in_dataclass, in_method, Objectives, in_named_tuple]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_copy_with_other_numbers_is_what_the_member_has(make: Callable[[float], Any]) -> None:
    numbers = (0.125, 0.3, 0.71)
    tasks = [plain_task(objective=make(number)) for number in numbers]
    (group,) = grouped(*tasks)
    assert group.indices == (0, 1, 2)
    assert group.reasons == ()
    model = Session.make_model(tasks[0]).eval()
    for position, task in enumerate(tasks):
        made = group.varying.objective(group.varying.of(position))
        assert torch.equal(made(model, BATCH), task.objective(model, BATCH))
    values = {task.objective(model, BATCH).item() for task in tasks}
    assert len(values) == len(tasks)  # else nothing was compared


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_users_objects_stay_as_they_are(make: Callable[[float], Any]) -> None:
    tasks = [plain_task(objective=make(number)) for number in (0.125, 0.3)]
    model = Session.make_model(tasks[0]).eval()
    before = [task.objective(model, BATCH) for task in tasks]
    (group,) = grouped(*tasks)
    for number in (0.9, torch.tensor(0.7)):
        made = group.varying.objective({slot.where: number for slot in group.varying.slots})
        assert not torch.equal(made(model, BATCH), before[0])
    assert all(
        torch.equal(task.objective(model, BATCH), loss)
        for task, loss in zip(tasks, before, strict=True)
    )


# Objectives that hold a number in a way that is not opened up: each stands alone, and is trained
# one by one.


def calling_itself(number: float) -> Callable[..., Any]:
    def objective(model: nn.Module, batch: Any, depth: int = 2) -> Tensor:
        if depth:
            return objective(model, batch, depth - 1) * number
        return plain_objective(model, batch)

    return objective


def leading_back(number: float) -> Callable[..., Any]:
    objective = Objectives(number)
    objective.chosen = objective.compute  # pyright: ignore[reportAttributeAccessIssue]
    return objective


def of_a_local_class(number: float) -> Callable[..., Any]:
    class Local(Objectives):
        pass

    return Local(number)


@dataclasses.dataclass(slots=True)
class InSlots:
    number: float

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return plain_objective(model, batch) * self.number


class InAnotherSlot(InSlots):
    """Has attributes beside the slot."""


class WithItems(list[float]):
    """A list that is called."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return plain_objective(model, batch) * self[0]


REFUSED = {
    calling_itself: "objective.objective: calling_itself.<locals>.objective that leads back to "
    "itself",
    leading_back: "objective.chosen: Objectives that leads back to itself",
    of_a_local_class: "objective: a of_a_local_class.<locals>.Local, one of another class",
    InSlots: "objective: InSlots, which cannot be compared",
    InAnotherSlot: "objective: InAnotherSlot, which cannot be compared",
    lambda number: WithItems([number]): "objective: WithItems, which cannot be compared",
}


@pytest.mark.parametrize("make", REFUSED)
def test_what_is_not_opened_up_stands_alone(make: Callable[[float], Any]) -> None:
    groups = grouped(*(plain_task(objective=make(0.5)) for _ in range(2)))
    assert [group.indices for group in groups] == [(0,), (1,)]
    assert REFUSED[make] in groups[0].reasons[0]


def test_the_places_of_numbers_are_in_words() -> None:
    (group,) = grouped(*(plain_task(objective=in_dataclass(number)) for number in (0.5, 0.25)))
    assert [(slot.where, slot.values) for slot in group.varying.slots] == [
        ("objective.settings.weights[1]", (1.5, 1.25)),
        ("objective.by_name['shift'][0]", (0.5, 0.25)),
    ]
    assert {slot.root for slot in group.varying.slots} == {"objective"}


def test_numbers_that_are_alike_do_not_vary() -> None:
    (group,) = grouped(
        plain_task(objective=in_closure(0.5)), plain_task(objective=in_closure(0.5), seed=3)
    )
    assert group.varying.slots == ()
    assert group.varying.objective({}) is group.varying.task.objective


class Untouchable:
    """Says of every question that it was asked."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        raise AssertionError("asked")

    def __hash__(self) -> int:
        raise AssertionError("asked")

    def __bool__(self) -> bool:
        raise AssertionError("asked")

    def __copy__(self) -> Any:
        raise AssertionError("asked")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise AssertionError("asked")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AssertionError("set")
        super().__setattr__(name, value)


def test_no_method_of_the_users_is_called() -> None:
    def holding(value: Untouchable) -> Callable[..., Any]:
        return lambda model, batch: plain_objective(model, batch) * value.number

    tasks = [plain_task(objective=holding(Untouchable(number))) for number in (0.5, 0.25)]
    (group,) = grouped(*tasks)
    model = Session.make_model(tasks[0]).eval()
    made = group.varying.objective({"objective.value.number": 0.25})
    assert torch.equal(made(model, BATCH), tasks[1].objective(model, BATCH))


def test_a_list_of_plain_values_is_compared_whole_and_still_opened_up() -> None:
    found = Comparison()
    found.values((("objective", "objective"),), [1, 2], [1, 3])
    assert found.differences == {"objective": ("[1, 2]", "[1, 3]")}
    # It may change: who watches it looks inside.
    assert parts_of([1, 2]) == [(("item", 0), 1), (("item", 1), 2)]


def test_only_the_way_to_a_number_is_copied() -> None:
    kept, limits = [1.0], [0.5, 0.25]
    value = {"kept": kept, "limits": limits}
    path = (("item", "limits"), ("item", 1))
    made = with_numbers(value, {path: 4.0})
    assert made == {"kept": [1.0], "limits": [0.5, 4.0]}
    assert made["kept"] is kept
    assert limits == [0.5, 0.25]
    assert text_of((("objective", "objective"), *path)) == "objective['limits'][1]"
