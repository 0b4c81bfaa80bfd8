"""What is asked of the planner, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from volano.plan import Plan
from volano.plan.explanation import Explanation


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What is asked of the planner.

    Attributes:
        device: as torch writes it; None is the accelerator, or the CPU without one.
        pins: knobs that the user has set.
        forbidden: knob -> values that the user will not have.
        budget: bytes that the training may hold on the device; None is what is free there.
        seconds: how long the run shall last, where its steps follow from that; None: ``task.num_steps`` are given.
        world_size: ranks that will train together.
        is_raced: whether candidates may be measured.
        is_free: nobody waits for a run, so that everything may be looked at.
        recalls: whether a plan that was found before is taken, and one that is found is remembered.
    """

    device: str | None = None
    pins: Mapping[str, Any] = field(default_factory=dict)
    forbidden: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    budget: int | None = None
    seconds: float | None = None
    world_size: int = 1
    is_raced: bool = True
    is_free: bool = False
    recalls: bool = True


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """A plan that was found.

    Attributes:
        plan: the plan.
        explanation: why it is that one.
        reasons: what a person should know, in words.
        step: seconds of a step under it, measured; None where it was not.
        startup: seconds that a run of it in this process pays once.
        may_split: whether the task's batch may be cut into micro-batches; None is not known.
    """

    plan: Plan
    explanation: Explanation
    reasons: tuple[str, ...]
    step: float | None
    startup: float = 0.0
    may_split: bool | None = None
