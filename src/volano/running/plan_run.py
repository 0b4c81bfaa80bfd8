"""The plan of a run: found by the planner, given as a file or a value, or plain eager."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from volano.device import Device
from volano.errors import PlanError, UsageError
from volano.plan import Plan
from volano.planner import PlanRequest, PlanResult, absent_plan, find_plan
from volano.planner.parity.batch_split import is_divisible, said_of_split
from volano.planner.parity.guard import ParityGuard
from volano.task import Task
from volano.training import check_plan


def choose_plan(
    task: Task,
    request: PlanRequest,
    *,
    world_size: int = 1,
    seconds: float | None = None,
    is_raced: bool = True,
) -> PlanResult:
    """Returns the plan for a task.

    Args:
        task: the task to train.
        request: the request for the plan.
        world_size: ranks that will train together.
        seconds: the time that the run shall last, if its steps follow from that; None: the task's
            are given.
        is_raced: whether candidates may be measured; otherwise the choices that need no measuring
            are taken.

    Raises:
        PlanError: a pin is not a knob or a value of one, nothing fits the budget, or a given plan
            does not fit.
        UsageError: the device is not on this machine.
        NotPredictedError: it is for a device that is not here, where nothing is predicted.
    """
    if request.plan is not None:
        plan = request.given()
        check_given(task, plan)
        return _as_given(task, plan)
    wanted = dataclasses.replace(
        request,
        world_size=world_size,
        seconds=seconds,
        is_raced=request.is_raced if is_raced else False,
    )
    return find_plan(task, wanted) if request.on is None else absent_plan(task, wanted)


def _as_given(task: Task, plan: Plan) -> PlanResult:
    size = plan.micro_batch
    if size is None or size >= task.batch_size:
        return PlanResult(plan=plan)
    found = ParityGuard(task, Device(plan.device), lambda: 0.0).divisible
    reasons = () if found.yes else (said_of_split(size, found),)
    return PlanResult(plan=plan, reasons=reasons, may_split=found.yes)


def split_when_needed(task: Task, plan: Plan) -> Callable[[], bool | None]:
    """Returns the function that finds out whether a task's batch may be split, of which planning
    had no need: for a step that runs out of memory all the same. It gives None if that cannot be
    looked at, for want of memory say."""

    def ask() -> bool | None:
        try:
            return is_divisible(task, Device(plan.device)).yes
        except Exception:  # noqa: BLE001 - a person's code, without memory
            return None

    return ask


def check_given(task: Task, plan: Plan) -> None:
    """Raises PlanError when a plan that was made elsewhere does not fit the task or this
    machine."""
    try:
        Device(plan.device)
    except UsageError as error:
        raise PlanError(
            "A plan must be for a device of this machine",
            got=f"device={plan.device!r}",
            remedy=error.remedy,
        ) from error
    check_plan(task, plan)
