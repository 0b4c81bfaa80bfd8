"""How the plan of a run comes about: found by the planner, given as a file or a value, or plain eager."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volano.device import Device
from volano.errors import PlanError, UsageError
from volano.plan import Plan
from volano.planner import Explanation, PlanRequest, find_plan
from volano.task import Task
from volano.training import RunFolder, check_plan

EXPLANATION = "explanation.json"


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a person says of how a run is to be planned.

    Attributes:
        device: as torch writes it; None is the accelerator, or the CPU without one.
        pins: knob -> value; None leaves it open.
        forbid: knob -> values that are not to be taken.
        budget: bytes that the training may hold on the device.
        plan: a whole plan, or the file of one; nothing is planned then.
        is_raced: whether candidates may be measured; otherwise the choices that need no measuring are taken.
    """

    device: str | None = None
    pins: Mapping[str, Any] = field(default_factory=dict)
    forbid: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None
    plan: Plan | str | Path | None = None
    is_raced: bool = True

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.pins.items() if value is not None}
        object.__setattr__(self, "pins", given)
        object.__setattr__(self, "forbid", {knob: _values(value) for knob, value in self.forbid.items()})
        if "device" in given or "device" in self.forbid:
            raise UsageError(
                "The device is named by itself", got="device among pins or forbid", remedy="Say device=..."
            )
        if self.budget is not None and self.budget < 1:
            raise UsageError("A budget is a number of bytes above 0", got=self.budget)
        if self.plan is not None and (self.device is not None or given or self.forbid or self.budget is not None):
            raise UsageError(
                "A whole plan leaves nothing to choose",
                got="plan together with device, pins, forbid or budget",
                remedy="Change the plan itself: Plan.load(path).pin(...)",
            )

    @property
    def place(self) -> Device:
        """Where the run will be.

        Raises:
            UsageError: the device is not on this machine.
            PlanError: the plan cannot be read.
        """
        return Device(self.device if self.plan is None else self.given().device)

    def given(self) -> Plan:
        """The whole plan that was given.

        Raises:
            PlanError: its file cannot be read, or is not a plan.
        """
        assert self.plan is not None
        return self.plan if isinstance(self.plan, Plan) else Plan.load(Path(self.plan))

    def without(self, knob: str, value: Any) -> PlanOptions:
        """The same with one value forbidden, unless it is pinned or a plan is given."""
        if self.plan is not None or knob in self.pins:
            return self
        forbidden = self.forbid.get(knob, ())
        if value in forbidden:
            return self
        if any(value == other for other in _others(knob, forbidden)):  # the last value that the person has left
            return self
        return dataclasses.replace(self, forbid={**self.forbid, knob: (*forbidden, value)})

    def quick(self) -> PlanOptions:
        """For finding out what is to be explained: the same place, with nothing measured and nothing refused."""
        return PlanOptions(device=self.device, is_raced=False)

    def preferring(self, **knobs: Any) -> PlanOptions:
        """The same with knobs pinned that the person has left open."""
        return self if self.plan is not None else dataclasses.replace(self, pins={**knobs, **self.pins})

    def wish(self, *, world_size: int = 1, seconds: float | None = None, is_raced: bool = True) -> PlanRequest:
        """As the planner takes it."""
        return PlanRequest(
            device=self.device, pins=self.pins, forbidden=self.forbid, budget=self.budget,
            world_size=world_size, seconds=seconds, is_raced=is_raced and self.is_raced,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChosenPlan:
    """The plan of a run.

    Attributes:
        plan: the plan.
        reasons: what a person should know of it.
        explanation: of the planner; None where the plan was given.
        step: seconds of a step under it, where the planner measured one.
        startup: seconds that the run will pay once.
        may_split: whether the batch may be cut into micro-batches, where that was found out.
    """

    plan: Plan
    reasons: tuple[str, ...] = ()
    explanation: Explanation | None = None
    step: float | None = None
    startup: float = 0.0
    may_split: bool | None = None

    def write(self, folder: RunFolder) -> None:
        """Leaves the explanation in a run's folder."""
        if self.explanation is not None:
            folder.write_json(EXPLANATION, dataclasses.replace(self.explanation, plan=self.plan).to_json())


def choose_plan(
    task: Task, planning: PlanOptions, *, world_size: int = 1, seconds: float | None = None, is_raced: bool = True
) -> ChosenPlan:
    """The plan for a task.

    Args:
        task: what.
        planning: what is said of how.
        world_size: ranks that will train together.
        seconds: how long the run shall last, where its steps follow from that; None: the task's are given.
        is_raced: whether candidates may be measured; otherwise the choices that need no measuring are taken.

    Raises:
        PlanError: a pin is not a knob or a value of one, nothing fits the budget, or a given plan does not fit.
        UsageError: the device is not on this machine.
    """
    if planning.plan is not None:
        plan = planning.given()
        check_given(task, plan)
        return ChosenPlan(plan=plan)
    found = find_plan(task, planning.wish(world_size=world_size, seconds=seconds, is_raced=is_raced))
    return ChosenPlan(
        plan=found.plan, reasons=found.reasons, explanation=found.explanation, step=found.step,
        startup=found.startup, may_split=found.may_split,
    )  # fmt: skip


def check_given(task: Task, plan: Plan) -> None:
    """Raises PlanError when a plan that was made elsewhere does not fit the task or this machine."""
    try:
        Device(plan.device)
    except UsageError as error:
        raise PlanError(
            "A plan is for a device of this machine", got=f"device={plan.device!r}", remedy=error.remedy
        ) from error
    check_plan(task, plan)


def _others(knob: str, forbidden: tuple[Any, ...]) -> tuple[Any, ...]:
    """The one value that is left of a knob that is on or off; nothing of the others, which have more."""
    if not isinstance(getattr(Plan.baseline("cpu"), knob, None), bool) or not forbidden:
        return ()
    return tuple(value for value in (True, False) if value not in forbidden)


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)
