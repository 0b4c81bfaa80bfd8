"""The plan under which a task runs while there is no planner: the safe default, fitted to the task, and pins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volano.data import can_be_resident, choose_workers, why_streamed
from volano.device import Device, describe_machine
from volano.plan import Plan
from volano.task import Task
from volano.training import why_a_step_fails


def choose_plan(
    task: Task, *, device: str | None = None, pins: Mapping[str, Any] | None = None, world_size: int = 1
) -> tuple[Plan, list[str]]:
    """The default plan for a task on a device, with the pinned knobs as given, and why it is what it is.

    Raises:
        PlanError: a pin is not a knob or a value of one.
        UsageError: the device is not on this machine.
    """
    pins = {name: value for name, value in (pins or {}).items() if value is not None}
    place = Device(device)
    # Ranks share a plan, and each has an accelerator of its own: the plan names none of them.
    plan, reasons = Plan.default(place.name if world_size == 1 else place.kind), []
    if task.tolerance == "exact":
        plan = Plan.baseline(plan.device).pin(feed=plan.feed, workers=plan.workers, allocator=plan.allocator)
        reasons.append("tolerance=exact: only knobs that leave the numbers bitwise the same")
    if "feed" not in pins:
        reason = why_streamed(task.data, task.collate, place)
        if task.valid is not None and reason is None:
            possible, why = can_be_resident(task.valid, task.collate, place)
            reason = None if possible else why
        if reason is not None:
            plan = plan.pin(feed="ring")
            reasons.append(f"feed=ring: {reason}")
    plan = plan.pin(**pins)
    if plan.feed == "resident":
        if plan.workers and "workers" in pins:
            reasons.append(f"workers={plan.workers} has no effect: a resident feed needs none")
        plan = plan.pin(workers=0)
    elif "workers" not in pins:
        # Each rank makes its part of a batch, with its share of the cores.
        num_cores = max(1, describe_machine(place).num_cores // world_size)
        batch_size = max(1, min(task.batch_size, len(task.data)) // world_size)
        choice = choose_workers(
            task.data, task.collate, batch_size, num_cores, num_steps=task.num_steps, seed=task.seed
        )
        plan = plan.pin(workers=choice.workers)
        reasons.append(f"workers={choice.workers}: {choice.reason}")
    if plan.sharding == "full" and "memory_format" not in pins:
        plan = plan.pin(memory_format="contiguous")
        reasons.append("memory_format=contiguous: parameters that are cut into parts lie in one piece")
    if plan.memory_format == "channels_last" and "memory_format" not in pins:
        plan, more = _without_what_fails(task, plan)
        reasons += more
    return plan, reasons


def _without_what_fails(task: Task, plan: Plan) -> tuple[Plan, list[str]]:
    """Contiguous where a step in channels_last fails: ``view`` on such a tensor, in code that is right otherwise."""
    reason = why_a_step_fails(task, plan)
    if reason is None:
        return plan, []
    contiguous = plan.pin(memory_format="contiguous")
    if why_a_step_fails(task, contiguous) is not None:
        return contiguous, []  # it fails either way; the run itself says how
    return contiguous, [f"memory_format=contiguous: a step in channels_last fails with {reason}"]
