"""The plan under which a task runs while there is no planner: the safe default, fitted to the task, and pins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volano.data import can_be_resident, choose_workers
from volano.device import Device, describe_machine
from volano.errors import PlanError
from volano.plan import SEMANTICS, Plan, semantics_of
from volano.task import Task


def choose_plan(
    task: Task, *, device: str | None = None, pins: Mapping[str, Any] | None = None
) -> tuple[Plan, list[str]]:
    """The default plan for a task on a device, with the pinned knobs as given, and why it is what it is.

    Raises:
        PlanError: a pin is not a knob or a value of one, or goes further than the task's ``tolerance``.
        UsageError: the device is not on this machine.
    """
    pins = {name: value for name, value in (pins or {}).items() if value is not None}
    place = Device(device)
    plan, reasons = Plan.default(place.name), []
    if task.tolerance == "exact":
        plan = Plan.baseline(place.name).pin(feed=plan.feed, workers=plan.workers, allocator=plan.allocator)
        reasons.append("tolerance=exact: only knobs that leave the numbers bitwise the same")
    if pins.get("feed", plan.feed) == "resident" and "feed" not in pins:
        possible, reason = can_be_resident(task.data, task.collate, place)
        if task.valid is not None and possible:
            possible, reason = can_be_resident(task.valid, task.collate, place)
        if not possible:
            plan = plan.pin(feed="ring")
            reasons.append(f"feed=ring: {reason}")
    plan = plan.pin(**pins)
    if plan.feed == "resident":
        plan = plan.pin(workers=0)
    elif "workers" not in pins:
        num_cores = describe_machine(place).num_cores
        workers, seconds = choose_workers(task.data, task.collate, min(task.batch_size, len(task.data)), num_cores)
        plan = plan.pin(workers=workers)
        reasons.append(f"workers={workers}: making a batch takes {seconds * 1e3:.1f} ms in this process")
    _check_tolerance(plan, task, pins)
    return plan, reasons


def _check_tolerance(plan: Plan, task: Task, pins: Mapping[str, Any]) -> None:
    limit = SEMANTICS.index(task.tolerance)
    baseline = Plan.baseline(plan.device)
    for name in plan.changes(baseline):
        if SEMANTICS.index(semantics_of(name)) > limit:
            raise PlanError(
                f"The task's tolerance is {task.tolerance!r}",
                got=f"{name}={pins.get(name)!r}, which is of class {semantics_of(name)!r}",
                remedy="Widen the task's tolerance, or do not pin it",
            )
