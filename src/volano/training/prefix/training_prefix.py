"""Applies the knob `prefix`: says where it does not apply, and passes objectives with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

from volano.device import Device
from volano.errors import DataError
from volano.plan import Plan
from volano.task import Batch, Task
from volano.training.prefix.frozen_prefix import NOT_ALIKE, FrozenPrefix


def why_not_cached(task: Task, plan: Plan, world_size: int) -> str | None:
    """Returns why nothing of a task is kept under a plan, whatever its model is; None if it may
    be."""
    if task.augment is not None:
        return "`augment` makes other examples in each epoch"
    if world_size > 1 or plan.sharding == "full":
        return "each of several ranks has other examples in each epoch"
    if plan.compile:
        return "compiled code looks nothing up"
    if plan.recompute != "none":
        return "its blocks are computed again in the backward pass"
    return None


def training_prefix(
    task: Task,
    plan: Plan,
    device: Device,
    model: nn.Module,
    world_size: int,
    on_notice: Callable[[str], None],
) -> FrozenPrefix | None:
    """Returns the frozen prefix of a training; None if the plan computes it at each step."""
    if plan.prefix == "computed":
        return None
    reason = why_not_cached(task, plan, world_size)
    if reason is not None:
        on_notice(f"prefix=cached has no effect: {reason}")
        return None
    return FrozenPrefix(model, device, len(task.data))


def announced(
    batches: Iterable[Batch], prefix: FrozenPrefix | None, device: Device
) -> Iterator[Batch]:
    """Yields batches; on an accelerator the prefix hears of each one batch ahead, before the device
    is given the step of the one before it."""
    if prefix is None or device.is_cpu:  # a batch on the host may lie in memory that is used again
        yield from batches
        return
    before: list[Batch] = []
    try:
        for batch in batches:
            prefix.announce(batch)
            yield from before
            before = [batch]
    except DataError:  # of the batch behind it
        yield from before
        raise
    yield from before


def evaluated_with_prefix(
    task: Task, model: nn.Module, device: Device, prefix: FrozenPrefix | None
) -> PassedWithPrefix | None:
    """Returns the objective for evaluations that take up what a frozen prefix computed of the
    validation set; None if there is none, or an average is evaluated, which has no prefix."""
    if prefix is None or task.valid is None or task.ema_decay is not None:
        return None
    return PassedWithPrefix(task.objective, model, device, len(task.valid))


class PassedWithPrefix:
    """An objective in evaluation, which takes up what frozen modules computed of the set.

    Args:
        objective: the task's.
        model: the model that is evaluated.
        capacity: examples of the set.

    Attributes:
        prefix: the model's frozen modules.
    """

    def __init__(
        self, objective: Callable[..., Any], model: nn.Module, device: Device, capacity: int
    ) -> None:
        self._objective, self._device = objective, device
        self.prefix = FrozenPrefix(model, device, capacity)

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        """Returns the objective's result."""
        prefix = self.prefix

        def objective(part: Batch) -> Any:
            return self._objective(model, part)

        if not prefix.is_on:
            return objective(batch)
        prefix.begin(objective, batch)
        states = self._device.generator_states()
        try:
            return prefix.loss(objective, batch)
        except NOT_ALIKE as error:
            prefix.stop(str(error))
        self._device.set_generator_states(states)
        return objective(batch)
