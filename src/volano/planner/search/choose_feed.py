"""Chooses how the data reaches the device: resident or streamed, and by how many workers. These are
knobs of class ``exact``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volano.data import can_be_resident, choose_workers, why_streamed
from volano.device import Device, num_cores
from volano.errors import PlanError
from volano.plan import Plan
from volano.planner.task_profile import resident_data_bytes
from volano.task import Task


def choose_feed(
    task: Task,
    plan: Plan,
    pins: Mapping[str, Any],
    *,
    world_size: int = 1,
    budget: int | None = None,
    forbidden: Mapping[str, tuple[Any, ...]] | None = None,
) -> tuple[Plan, list[str]]:
    """Chooses ``feed`` and ``workers`` if they are not pinned. Returns the plan with both, and the
    reasons.

    Args:
        task: the task to plan.
        plan: the plan with the pins.
        pins: the user's pins.
        world_size: number of ranks, each of which makes its part of a batch with its share of the
            cores.
        budget: bytes that the device may hold; a set that takes more than half of it is streamed.
        forbidden: knob -> values that the user excludes.

    Raises:
        PlanError: no value of a knob that is left is possible.
    """
    place, reasons, forbidden = Device(plan.device), [], forbidden or {}
    if "feed" not in pins:
        reason = why_streamed(task.data, task.collate, place)
        if reason is None and task.valid is not None:
            possible, why = can_be_resident(task.valid, task.collate, place)
            reason = None if possible else why
        if (
            reason is None
            and budget is not None
            and (size := resident_data_bytes(task) or 0) > budget / 2
        ):
            reason = f"{size:,} bytes of data are more than half of the budget"
        if reason is None and "resident" in forbidden.get("feed", ()):
            reason = "resident is forbidden by you"
        plan = plan.pin(feed="resident" if reason is None else "ring")
        if reason is not None:
            reasons.append(f"feed=ring: {reason}")
    _check_not_forbidden(plan, "feed", forbidden, reasons)
    if plan.feed == "resident":
        if plan.workers and "workers" in pins:
            reasons.append(f"workers={plan.workers} has no effect: a resident feed needs none")
        return plan.pin(workers=0), reasons
    if "workers" not in pins:
        cores = max(1, num_cores() // world_size)
        batch_size = max(1, min(task.batch_size, len(task.data)) // world_size)
        choice = choose_workers(
            task.data,
            task.collate,
            batch_size,
            cores,
            num_steps=task.num_steps,
            seed=task.order_seed,
            cpu_trains=place.is_cpu,
        )
        plan = plan.pin(workers=choice.workers)
        reasons.append(f"workers={choice.workers}: {choice.reason}")
    _check_not_forbidden(plan, "workers", forbidden, reasons)
    return plan, reasons


def _check_not_forbidden(
    plan: Plan, knob: str, forbidden: Mapping[str, tuple[Any, ...]], reasons: list[str]
) -> None:
    value = getattr(plan, knob)
    if value in forbidden.get(knob, ()):
        raise PlanError(
            f"A value of {knob} must be left that is not forbidden",
            got=f"{knob}={value} forbidden, and {'; '.join(reasons) or 'pinned'}",
            remedy=f"Pin {knob} to another value, or do not forbid this one",
        )
