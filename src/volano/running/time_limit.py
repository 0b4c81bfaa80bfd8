"""The time that a run may take: what is left of it, and what may be measured in it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

from volano.plan import Plan
from volano.planner import PlanRequest, PlanResult, absent_step, share_of_rank
from volano.running.plan_run import choose_plan
from volano.running.time_schedule import (
    LEAST_LOOK_SECONDS,
    LOOK_SHARE,
    PLANNING_SHARE,
    WRITING_SECONDS,
    NetworkCosts,
    TimeSchedule,
    reserve_seconds,
    revised_steps,
    revision_point,
    steps_at_later_look,
)
from volano.task import Task
from volano.training import LengthRule, StepTime, measure_step_time

# Steps of one network are timed for this share of the time, at most so many seconds; and with
# building it and warming up no further step begins after twice that. Three or four are timed.
_TIMING_SHARE, _MOST_TIMING_SECONDS = 0.005, 3.0
_LATE_SHARE, _LEAST_LATE_SECONDS = 0.01, 0.2


@dataclass(frozen=True, kw_only=True)
class TimeLimit:
    """The time that a run may take, and how it is to be planned.

    Attributes:
        planning: the request for the plan.
        started: the time at which the whole call began, by ``time.perf_counter``.
        seconds: the seconds of the whole call.
        is_default: whether no length was asked for.
        world_size: ranks that will train together.
        writing: seconds for the files, the report and the interpreter's end.
        said: what was found out before, for a person to read.
        check: raises UsageError unless the processes asked for can train a task under a plan.
    """

    planning: PlanRequest
    started: float
    seconds: float
    is_default: bool = False
    world_size: int = 1
    writing: float = WRITING_SECONDS
    said: tuple[str, ...] = ()
    check: Callable[[Task, Plan], None] = lambda task, plan: None  # noqa: ARG005

    def left(self) -> float:
        """The seconds that are left of the call; all of them on a device that is not here, where
        nothing was done yet."""
        if self.planning.on is not None:
            return self.seconds
        return self.seconds - (time.perf_counter() - self.started)

    def planning_left(self, begun: float) -> float:
        """The seconds that planning may still take; ``begun``: what was left of the call when it
        began."""
        return max(0.0, PLANNING_SHARE * self.seconds - (begun - self.left()))

    def choose_plan(
        self,
        task: Task,
        *,
        seconds: float | None = None,
        is_raced: bool = True,
        planning: PlanRequest | None = None,
        planning_seconds: float | None = None,
    ) -> PlanResult:
        """Chooses a plan; see :func:`volano.running.plan_run.choose_plan`."""
        planning = planning or self.planning
        if planning_seconds is not None:
            planning = dataclasses.replace(planning, planning_seconds=planning_seconds)
        return choose_plan(
            task, planning, world_size=self.world_size, seconds=seconds, is_raced=is_raced
        )

    def measure_step(self, task: Task, plan: Plan) -> StepTime:
        """Times steps of one rank's share, for a small share of the time; predicts them for a
        device that is not here.

        Raises:
            NotPredictedError: they are not predicted.
        """
        if self.planning.on is not None:
            predicted = absent_step(task, plan, self.planning)
            return StepTime(step=predicted.step, startup=predicted.startup)
        return measure_step_time(
            *share_of_rank(task, plan, self.world_size),
            seconds=min(_MOST_TIMING_SECONDS, _TIMING_SHARE * self.seconds),
            most_seconds=max(_LEAST_LATE_SECONDS, _LATE_SHARE * self.seconds),
            is_later=True,
            on_limit=lambda _: None,  # the run goes on uncompiled too, and says so
        )

    def length_rule(self, schedule: TimeSchedule, network: NetworkCosts) -> LengthRule | None:
        """The rule by which the run looks at its number of steps again, early and later; None if
        several ranks train, each with a clock of its own."""
        if self.world_size > 1:
            return None
        after_steps, after_seconds = revision_point(schedule.num_steps, schedule.training)
        kept = schedule.kept + schedule.evaluation

        def num_steps(step: int, measured: float) -> int:
            return revised_steps(
                step=step, num_steps=schedule.num_steps, expected=network.pace,
                measured=measured * network.pace / network.step,
                left=self.left() - reserve_seconds(self.seconds),
                kept=kept, most_steps=network.most_steps,
            )  # fmt: skip

        def later(step: int, before: int, measured: float) -> int:
            reserve = reserve_seconds(self.seconds)
            return steps_at_later_look(
                step=step, num_steps=before, expected=network.pace,
                measured=measured * network.pace / network.step,
                left=self.left() - reserve, reserve=reserve, most_steps=network.most_steps,
                kept=schedule.kept + schedule.evaluation * (1.0 - step / before),
            )  # fmt: skip

        return LengthRule(
            after_steps=after_steps, after_seconds=after_seconds, num_steps=num_steps,
            again_seconds=max(LEAST_LOOK_SECONDS, LOOK_SHARE * schedule.training),
            later=later,
        )  # fmt: skip
