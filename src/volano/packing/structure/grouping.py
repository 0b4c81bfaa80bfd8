"""The groups of tasks that can share one program: which numbers vary within a group, and in words
why other tasks stand apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from volano.packing.structure.callable_tree import Comparison, Path, text_of, with_numbers, word
from volano.task import Task, describe

_MOST_REASONS, _MOST_VALUES, _MOST_COMPARED = 6, 5, 8
# Options of optimizers that are numbers whatever their type: a user may write lr=1.
_NUMBERS = frozenset(
    {"lr", "weight_decay", "momentum", "dampening", "eps", "betas", "alpha", "lr_decay", "rho"}
)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A number that varies between the members of a group.

    Attributes:
        where: the number's place: ``"objective.smoothing"``, ``"model.2.p"``.
        values: one for each member, in the group's order.
        path: the path to it, as in :mod:`volano.packing.structure.callable_tree`.
    """

    where: str
    values: tuple[float, ...]
    path: Path

    @property
    def root(self) -> str:
        """The root of the path: ``"objective"``, ``"augment"`` or ``"model"``."""
        return self.path[0][1]


@dataclass(frozen=True, kw_only=True)
class VaryingNumber:
    """The numbers that vary within a group, and the first member's callables with other numbers.

    ``values`` are mappings from each slot's ``where`` to a number or a 0-d tensor. The user's own
    objects are never changed: those that hold a number are copied.

    Attributes:
        slots: the numbers, each once.
        task: the first member's task.
    """

    slots: tuple[Slot, ...]
    task: Task

    def of(self, position: int) -> dict[str, float]:
        """Returns the numbers of the member at a position in the group."""
        return {slot.where: slot.values[position] for slot in self.slots}

    def objective(self, values: Mapping[str, Any]) -> Callable[..., Any]:
        """Returns the objective with these numbers."""
        return self._with(self.task.objective, values, (("objective", "objective"),))

    @contextmanager
    def in_model(self, model: nn.Module, values: Mapping[str, Any]) -> Iterator[None]:
        """Sets the numbers in a model of the group's structure, and restores the model
        afterwards."""
        kept: list[tuple[nn.Module, str, Any]] = []
        try:
            for prefix in dict.fromkeys(
                slot.path[:3] for slot in self.slots if slot.root == "model"
            ):
                module, name = model.get_submodule(prefix[1][1]), prefix[2][1]
                kept.append((module, name, module.__dict__[name]))
                module.__dict__[name] = self._with(module.__dict__[name], values, prefix)
            yield
        finally:
            for module, name, value in kept:
                module.__dict__[name] = value

    def _with(self, value: Any, values: Mapping[str, Any], path: Path) -> Any:
        numbers = {s.path: values[s.where] for s in self.slots if s.path[: len(path)] == path}
        return with_numbers(value, numbers, path)


@dataclass(frozen=True, kw_only=True)
class TaskGroup:
    """The tasks that one program can train.

    Attributes:
        indices: positions of the tasks among those given, in their order.
        varying: the numbers that differ between the tasks.
        reasons: why the group stands apart from the other groups: ``"batch_size: 32, 64"``, its own
            value first.
    """

    indices: tuple[int, ...]
    varying: VaryingNumber
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Side:
    task: Task
    model: nn.Module
    optimizer: torch.optim.Optimizer | None


def groups_of(
    tasks: Sequence[Task],
    models: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
) -> list[TaskGroup]:
    """Returns the tasks in groups that can each be trained as one program, in the order of their
    first members.

    Args:
        tasks: K tasks.
        models: one model for each, as ``task.model()`` makes it.
        optimizers: one optimizer for each, or None if they are not to be compared.
    """
    sides = [
        _Side(task, model, None if optimizers is None else optimizers[index])
        for index, (task, model) in enumerate(zip(tasks, models, strict=True))
    ]
    groups: list[list[tuple[int, Comparison]]] = []
    for index, side in enumerate(sides):
        for group in groups:
            found = _compare(sides[group[0][0]], side, limit=1)
            if not found.differences:
                group.append((index, found))
                break
        else:
            groups.append([(index, Comparison())])
    firsts = [sides[group[0][0]] for group in groups]
    return [
        TaskGroup(
            indices=tuple(index for index, _ in group),
            varying=_varying(firsts[place].task, [found for _, found in group]),
            reasons=_reasons(place, firsts),
        )
        for place, group in enumerate(groups)
    ]


def _compare(one: _Side, other: _Side, *, limit: int) -> Comparison:
    found = Comparison(limit=limit)
    evaluated = () if one.task.valid is None else ("evaluation_interval",)
    for name in ("batch_size", "last_batch", "num_steps", *evaluated, "tolerance", "keep"):
        mine, others = getattr(one.task, name), getattr(other.task, name)
        if mine != others:
            found.differ(name, str(mine), str(others))
    for name in ("ema_decay", "valid", "augment"):
        mine, others = getattr(one.task, name), getattr(other.task, name)
        if (mine is None) != (others is None):
            found.differ(name, *("none" if value is None else "given" for value in (mine, others)))
    _compare_optimizers(found, one.optimizer, other.optimizer)
    if not found.is_over:
        found.models("model", one.model, other.model)
    for name, is_exact in (("objective", False), ("augment", False), ("collate", True)):
        found.values(
            ((name, name),), getattr(one.task, name), getattr(other.task, name), exact=is_exact
        )
    for name in ("data", "valid"):
        if not found.is_over:
            _compare_data(found, name, one, other)
    return found


def _compare_optimizers(
    found: Comparison, one: torch.optim.Optimizer | None, other: torch.optim.Optimizer | None
) -> None:
    if one is None or other is None:
        return
    if type(one) is not type(other):
        found.differ("optimizer class", type(one).__name__, type(other).__name__)
        return
    for name in sorted(one.defaults.keys() | other.defaults.keys()):
        mine, others = _flag(name, one.defaults.get(name)), _flag(name, other.defaults.get(name))
        if mine != others:
            found.differ(f"optimizer {name}", word(mine), word(others))


def _flag(name: str, value: Any) -> Any:
    """Returns the part of an optimizer's option that must be the same for members of a group: a
    number may be any."""
    is_number = isinstance(value, float | torch.Tensor) or (
        name in _NUMBERS and not isinstance(value, bool)
    )
    if isinstance(value, tuple):
        return tuple(_flag(name, item) for item in value)
    return "a number" if is_number and value is not None else value


def _compare_data(found: Comparison, name: str, one: _Side, other: _Side) -> None:
    """Compares two data sets: they must be the same object, or show that they hold the same.
    Digests that look at a few rows decide only if the rest cannot be seen."""
    mine, others = getattr(one.task, name), getattr(other.task, name)
    if mine is others or mine is None or others is None:
        return
    if callable(getattr(mine, "fingerprint", None)) and callable(
        getattr(others, "fingerprint", None)
    ):
        if (type(mine), len(mine), mine.fingerprint()) != (
            type(others),
            len(others),
            others.fingerprint(),
        ):
            found.differ(name, f"{type(mine).__name__} of {len(mine)}", f"another of {len(others)}")
        return
    exact = Comparison()
    exact.values(((name, name),), mine, others, exact=True)
    if exact.opaque:
        digests = [describe(side.task, side.model)[name] for side in (one, other)]
        if digests[0] == digests[1] and all(_has_content(digest) for digest in digests):
            return
    for place, words in exact.differences.items():
        found.differ(place, *words)


def _has_content(digest: Mapping[str, Any]) -> bool:
    if "of" in digest:
        return "rows_digest" in digest and _has_content(digest["of"])
    return "content_digest" in digest


def _varying(first: Task, compared: Sequence[Comparison]) -> VaryingNumber:
    """Returns the numbers that vary; ``compared``: each member with the first one."""
    own = {path: pair[0] for found in compared for path, pair in found.numbers.items()}
    slots: list[Slot] = []
    taken: set[str] = set()
    for path, number in own.items():
        where = text_of(path)
        while where in taken:
            where += "'"
        taken.add(where)
        values = tuple(found.numbers.get(path, (number, number))[1] for found in compared)
        slots.append(Slot(where=where, values=values, path=path))
    return VaryingNumber(slots=tuple(slots), task=first)


def _reasons(place: int, firsts: Sequence[_Side]) -> tuple[str, ...]:
    found: dict[str, list[str]] = {}
    for index, other in enumerate(firsts[: _MOST_COMPARED + 1]):
        if index == place:
            continue
        for where, (mine, others) in _compare(
            firsts[place], other, limit=_MOST_REASONS
        ).differences.items():
            if _follows(where, firsts[place].task, other.task):
                continue
            words = found.setdefault(where, [mine])
            if others not in words:
                words.append(others)
    capped = {
        where: [*words[:_MOST_VALUES], *(["…"] if len(words) > _MOST_VALUES else [])]
        for where, words in found.items()
    }
    return tuple(f"{where}: {', '.join(words)}" for where, words in capped.items())[:_MOST_REASONS]


def _follows(where: str, one: Task, other: Task) -> bool:
    """Checks whether numbers of steps differ because the batch size does, and for no other
    reason."""
    if one.batch_size == other.batch_size:
        return False
    return (where == "num_steps" and one.duration == other.duration) or (
        where == "evaluation_interval" and one.evaluate_every == other.evaluate_every
    )
