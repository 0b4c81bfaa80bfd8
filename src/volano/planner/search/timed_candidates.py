"""The candidates of a search that have run, and what follows from their seconds: what is left of
the time, what a run would cost, which candidate runs next."""

from __future__ import annotations

import time
from collections.abc import Mapping

from volano.plan import Plan, changes_text
from volano.planner.cost_model import COMPILE_SECONDS, CostModel
from volano.planner.request import PlanRequest
from volano.planner.search.batch_share import first_part
from volano.planner.search.candidates import CandidateSpace
from volano.planner.search.fit_memory import Fit
from volano.planner.search.gains import compile_gain, is_worth
from volano.planner.search.time_budget import TimeBudget
from volano.planner.search.timing import Timing, TimingRuns
from volano.planner.task_profile import TaskProfile
from volano.task import Task

# The guard's work: seconds however short a step is, and plain steps for a reference in float64 and
# some steps of the candidate.
GUARD_SECONDS, GUARD_STEPS = 1.0, 12
MOST_TIMING_SECONDS = 0.5
# Share of the run, before its length is known: the first share of the time budget is 0.015.
_FIRST_TIMING_SHARE = 0.01
# Seconds of two captures in processes of their own, and of the device's rates if they are not
# known. If less is left, nothing is predicted.
_PREDICTION_SECONDS = 3.0


class TimedCandidates:
    """The candidates of the race of one search.

    Args:
        task: the task as one rank has it.
        profile: its profile on the device.
        space: the task's candidates.
        fits: precision -> the ways in which its plans fit the memory; empty if everything surely
            fits.
        time_budget: the seconds that may be spent.
        request: the request to the planner.
        share: the share of each batch on which candidates are timed.

    Attributes:
        space: the candidates, with the refusals that the race brought.
        has_ended_early: whether nothing was left that could be faster.
        why_not_compiled: why candidates were not compiled; None if there were none.
    """

    def __init__(
        self,
        task: Task,
        profile: TaskProfile,
        space: CandidateSpace,
        fits: Mapping[str, Fit],
        cost_model: CostModel,
        time_budget: TimeBudget,
        request: PlanRequest,
        share: float = 1.0,
    ) -> None:
        self.space, self.share = space, share
        self.has_ended_early = False
        self._device = profile.device
        self._task, self._request = task, request
        self._fits, self._cost_model, self._time_budget = fits, cost_model, time_budget
        batches = [profile.device.move(first_part(batch, share)) for batch in profile.batches]
        self._timing_runs = TimingRuns(task, batches, lambda: self.seconds_left, share)
        self._way: dict[str, int] = {}
        self._seconds_each = 0.0  # that the last eager candidate took: its session, and its steps
        self.why_not_compiled: str | None = None

    @property
    def timings(self) -> Mapping[Plan, Timing]:
        """Timings of all candidates, in the order in which they ran."""
        return self._timing_runs.timings

    def ranking(self) -> list[Timing]:
        """Returns the plans that ran, the cheapest first."""
        return sorted(
            (timing for timing in self.timings.values() if timing.step is not None), key=self.cost
        )

    @property
    def leader(self) -> Timing | None:
        """The cheapest plan that ran."""
        return next(iter(self.ranking()), None)

    def cost(self, timing: Timing) -> float:
        """Returns the seconds of the rest of the whole run under a candidate. What was compiled
        here is not compiled again, except in ranks, which are processes of their own."""
        assert timing.step is not None
        return (
            timing.step * self.num_steps
            + self.filling(timing) * min(self.num_steps, self._task.steps_per_epoch)
            + (timing.startup if self._request.world_size > 1 else 0.0)
        )

    def pays_for_guard(self, saved: float) -> bool:
        """Checks whether so many saved seconds of the run are more than the guard's look at a
        candidate takes."""
        plain_steps = GUARD_STEPS * (self.first_step or 0.0)
        return saved > max(GUARD_SECONDS, min(plain_steps, self._time_budget.left))

    def filling(self, timing: Timing) -> float:
        """Returns the seconds that a step of the first epoch takes more than a later one: that of
        a frozen prefix, which is kept from then on."""
        if timing.plan.prefix == "computed" or timing.step is None:
            return 0.0
        return max(0.0, self._whole_step(timing) - timing.step)

    def _whole_step(self, timing: Timing) -> float:
        """Returns the seconds of a step that computes the prefix."""
        twins = (self.timings.get(timing.plan.pin(prefix="computed")), *self.timings.values())
        for twin in twins:
            if twin is not None and twin.step is not None and twin.plan.prefix == "computed":
                return twin.step
        return timing.startup  # its first step is in it

    @property
    def first_step(self) -> float | None:
        """The seconds of a step of the first candidate that ran: plain eager, if that fits."""
        return next(
            (timing.step for timing in self.timings.values() if timing.step is not None), None
        )

    @property
    def num_steps(self) -> int:
        """The number of steps of the run; if its length is given in seconds, the steps that the
        first candidate would make."""
        if self._request.seconds is None or not self.first_step:
            return self._task.num_steps
        return max(1, int(self._request.seconds / self.first_step))

    @property
    def seconds_left(self) -> float:
        """Returns the seconds left for racing. The guard must be paid afterwards, with a smaller
        batch if time is short."""
        return self._time_budget.left - min(
            GUARD_SECONDS + GUARD_STEPS * (self.first_step or 0.0), 0.3 * self._time_budget.total
        )

    def eager_plans(self) -> list[Plan]:
        """Returns the combinations of precision and memory format on top of the safe choices, the
        likeliest to be fast first."""
        plans = self._combinations()
        expected = [self._cost_model.expected(plan) for plan in plans]
        order = [step for step in expected if step is not None]
        if len(order) < len(plans):
            return plans
        return [plan for _, plan in sorted(zip(order, plans, strict=True), key=lambda p: p[0])]

    def _combinations(self) -> list[Plan]:
        options, safe = self.space.options, self.space.safe
        plans = [
            self._fitted(safe.pin(precision=precision, memory_format=memory_format))
            for precision in reversed(options["precision"])
            for memory_format in reversed(options["memory_format"])
        ]
        return [plan for plan in plans if plan is not None]

    def ask(self) -> None:
        """Has the eager candidates predicted, from now on."""
        self._cost_model.is_asked = True
        self._cost_model.capture([self.space.base, *self._combinations()])

    # ---- timing runs

    def _fitted(self, plan: Plan) -> Plan | None:
        """Returns the plan with the knobs that make it fit; None if none do."""
        fit = self._fits.get(plan.precision)
        return plan if fit is None else fit.applied(plan, self._way.get(plan.precision, 0))

    def _enter(self, plan: Plan) -> Timing:
        is_known = self._time_budget.run_seconds is not None or self._request.is_free
        begun = time.perf_counter()
        timing = self._timing_runs.run(
            plan,
            seconds=min(MOST_TIMING_SECONDS, max(0.02, 0.05 * self._time_budget.total)),
            most_share=1.0 if is_known else _FIRST_TIMING_SHARE,
        )
        if not plan.compile:
            self._seconds_each = time.perf_counter() - begun
        self._tell(timing)
        if timing.step is not None and self.share == 1.0 and self.space.is_predicted(plan):
            self._cost_model.learn(plan, timing.step)
            if plan.compile and plan.compile_mode != "max-autotune":
                self._cost_model.learn_startup(plan, timing.startup)
        if (
            self._request.seconds is None
            and timing.step is not None
            and self._time_budget.run_seconds is None
        ):
            self._time_budget.run_seconds = timing.step * self._task.num_steps
        first, best = self.first_step, self._timing_runs.best
        if first and best is not None and best.step is not None:
            whole = first * self.num_steps
            self._time_budget.note_gain(
                1.0 - best.step / first
                if best.plan.prefix == "computed"
                else 1.0 - self.cost(best) / whole
            )
        if self.seconds_left > _PREDICTION_SECONDS and self._has_choice:
            self.ask()
        return timing

    @property
    def _has_choice(self) -> bool:
        """Checks whether predictions have something to decide: which candidate runs first, and
        whether compiling is worth it."""
        options, best = self.space.options, self._timing_runs.best
        if len(options["precision"]) * len(options["memory_format"]) > 1:
            return True
        seconds = 0.0 if best is None or best.step is None else best.step * self.num_steps
        return True in options["compile"] and self._is_worth_compiling(seconds, COMPILE_SECONDS)

    def _tell(self, timing: Timing) -> None:
        name = changes_text(timing.plan, self.space.base)
        if timing.step is None:
            self._request.observer.on_candidate(f"{name}: {timing.failure}")
            return
        is_predicted = self.space.is_predicted(timing.plan)
        predicted = self._cost_model.time(timing.plan) if is_predicted else None
        beside = "" if predicted is None else f", {1e3 * predicted.step:.3g} ms predicted"
        self._request.observer.on_candidate(f"{name}: {1e3 * timing.step:.3g} ms a step{beside}")

    def _try(self, plan: Plan, *, startup: float = 0.0) -> Timing | None:
        """Runs a candidate, if there is time left for it."""
        best = self._timing_runs.best
        step = best.step if best is not None and best.step is not None else 0.0
        if plan.prefix == "cached":  # its first step computes the prefix
            step = max(step, self.first_step or 0.0)
        if plan in self.timings:
            return self.timings[plan]
        left = self.seconds_left
        if plan.compile:  # what the run reuses of an earlier one is spent all the same
            left = min(left, self._time_budget.left_in_all)
        needed = 2 * self.share * step + startup
        # Candidates that leave the guard no time are timed for nothing.
        needed = needed if plan.compile else max(needed, self._seconds_each)
        if self._is_too_large(plan) or left < needed:
            return None
        if plan.compile:
            self._request.observer.on_phase(f"compiling {changes_text(plan, self.space.base)}")
        return self._enter(plan)

    def _is_too_large(self, plan: Plan) -> bool:
        """Checks whether the plan's memory is known and does not fit."""
        return bool(self._fits) and self._cost_model.verdict(plan) == "NO"

    @property
    def _compile_gain(self) -> float:
        """The share of a step that compiling may save."""
        return compile_gain(self._cost_model, self.space.safe, is_cpu=self._device.is_cpu)

    def _is_worth_compiling(self, run_seconds: float, startup: float) -> bool:
        return self._request.is_thorough or is_worth(self._compile_gain * run_seconds, startup)
