"""The request to the planner, and its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volano.device import AbsentDevice, Device, find_device
from volano.errors import UsageError
from volano.plan import Plan
from volano.plan.explanation import Explanation
from volano.record.run_folder import RunFolder
from volano.training import Observer

EXPLANATION = "explanation.json"


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """The request to the planner, checked.

    Attributes:
        device: the device's name as torch writes it; None is the accelerator, or the CPU if there
            is none.
        on: the name of a device that is not here, for which is planned: everything is predicted.
        pins: knob -> value that the user has set; None leaves it open.
        forbid: knob -> values that the user excludes; a single value stands for itself.
        budget: bytes that the training may hold on the device; None stands for what is free there.
        plan: a whole plan, or the file of one; then nothing is planned.
        seconds: the run's length, if its number of steps follows from that; None if
            ``task.num_steps`` is given.
        planning_seconds: the seconds that planning may take at most; None leaves that to the run's
            length.
        timed: plans of which steps were timed already -> the seconds of one: predictions are
            corrected by them before they are told.
        world_size: ranks that will train together.
        is_raced: whether candidates may be measured; otherwise the planner takes the choices that
            need no measuring. None, of a free search, measures them if that takes less than it can
            gain.
        is_free: whether no run waits for the plan: candidates are predicted first, and without
            measuring the one is taken that is predicted to be the fastest.
        recalls: whether a remembered plan may be taken, and a new plan is remembered.
        observer: the observer that hears what the search does.
    """

    device: str | None = None
    on: str | None = None
    pins: Mapping[str, Any] = field(default_factory=dict)
    forbid: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None
    plan: Plan | str | Path | None = None
    seconds: float | None = None
    planning_seconds: float | None = None
    timed: Mapping[Plan, float] = field(default_factory=dict)
    world_size: int = 1
    is_raced: bool | None = True
    is_free: bool = False
    recalls: bool = True
    observer: Observer = field(default_factory=Observer, compare=False, repr=False)

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.pins.items() if value is not None}
        object.__setattr__(self, "pins", given)
        assert self.is_raced is not None or self.is_free, "a run must know whether it is raced"
        object.__setattr__(
            self, "forbid", {knob: _values(value) for knob, value in self.forbid.items()}
        )
        if "device" in given or "device" in self.forbid:
            raise UsageError(
                "The device must be given by `device`, not as a pin or a forbidden value",
                got="device among pins or forbid",
                remedy="Give `device` instead",
            )
        if self.budget is not None and self.budget < 1:
            raise UsageError("`budget` must be a number of bytes above 0", got=self.budget)
        if self.plan is not None and (
            self.device is not None or given or self.forbid or self.budget is not None
        ):
            raise UsageError(
                "`plan` fixes every knob and leaves nothing to choose",
                got="plan together with device, pins, forbid or budget",
                remedy="Change the plan itself: Plan.load(path).pin(...)",
            )

    @property
    def is_thorough(self) -> bool:
        """Checks whether everything is to be tried, as far as the time allows: somebody asked."""
        return self.is_free and self.is_raced is True

    @property
    def is_deterministic(self) -> bool:
        """Checks whether the plan is to be deterministic.

        Raises:
            PlanError: the plan cannot be read.
        """
        if self.plan is not None:
            return self.given().deterministic
        return self.pins.get("deterministic") is True

    @property
    def place(self) -> Device:
        """Returns the device of the run.

        Raises:
            UsageError: the device is not on this machine, or ``on`` is not in the catalogue.
            PlanError: the plan cannot be read.
        """
        if self.on is not None:
            return AbsentDevice(find_device(self.on))
        return Device(self.device if self.plan is None else self.given().device)

    def given(self) -> Plan:
        """Returns the whole plan that was given.

        Raises:
            PlanError: its file cannot be read, or is not a plan.
        """
        assert self.plan is not None
        return self.plan if isinstance(self.plan, Plan) else Plan.load(Path(self.plan))

    def without(self, knob: str, value: Any) -> PlanRequest:
        """Returns the request with one more value forbidden, unless the knob is pinned or a plan is
        given."""
        if self.plan is not None or knob in self.pins:
            return self
        forbidden = self.forbid.get(knob, ())
        if value in forbidden:
            return self
        # The last value that the user has left open.
        if any(value == other for other in _others(knob, forbidden)):
            return self
        return dataclasses.replace(self, forbid={**self.forbid, knob: (*forbidden, value)})

    def quick(self) -> PlanRequest:
        """Returns a quick form of the request, for deciding what to explain: the same device,
        nothing measured and nothing refused; for a device that is not here all candidates are
        predicted."""
        # Predictions take little, and are all that is to be had of a device that is not here.
        return PlanRequest(device=self.device, on=self.on, is_raced=self.on is not None)

    def preferring(self, **knobs: Any) -> PlanRequest:
        """Returns the request with more knobs pinned, if the user has left them open."""
        return (
            self
            if self.plan is not None
            else dataclasses.replace(self, pins={**knobs, **self.pins})
        )


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """The plan of a run, found or given.

    Attributes:
        reasons: notices for the user about the plan.
        explanation: why this plan was chosen; None if the plan was given.
        step: measured seconds of a step under the plan; None if it was not measured.
        startup: seconds that a run in this process pays once.
        may_split: whether the task's batch may be cut into micro-batches; None if that is not
            known.
    """

    plan: Plan
    reasons: tuple[str, ...] = ()
    explanation: Explanation | None = None
    step: float | None = None
    startup: float = 0.0
    may_split: bool | None = None

    def write(self, folder: RunFolder) -> None:
        """Writes the explanation to a run's folder."""
        if self.explanation is not None:
            folder.write_json(
                EXPLANATION, dataclasses.replace(self.explanation, plan=self.plan).to_json()
            )


def _others(knob: str, forbidden: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the one value that is left of an on/off knob, and nothing for knobs with more
    values."""
    if not isinstance(getattr(Plan.baseline("cpu"), knob, None), bool) or not forbidden:
        return ()
    return tuple(value for value in (True, False) if value not in forbidden)


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)
