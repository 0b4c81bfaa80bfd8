"""The race: which candidates run, in which order, and how long the search continues: as long as the
run's length pays for it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping

from volano.plan import Plan
from volano.plan.explanation import Refusal
from volano.planner.cost_model import CostModel
from volano.planner.request import PlanRequest
from volano.planner.search.candidates import CandidateSpace
from volano.planner.search.fit_memory import Fit
from volano.planner.search.time_budget import TimeBudget
from volano.planner.search.timing import Timing, TimingRuns
from volano.planner.task_profile import TaskProfile
from volano.task import Task

# The share of a step that torch.compile may save, measured from -40 to 24 % on the CPU
# (docs/log.md). It is tried if this share of the rest of the run is worth so many of its start-ups,
# because it often saves nothing.
_COMPILE_GAIN, _WORTH_STARTUPS = 0.2, 2.0
# The guard's work, in plain steps: a reference in float64, and some steps of the candidate.
_GUARD_STEPS = 12
_MOST_TIMING_SECONDS = 0.5
# Share of the run, before its length is known: the first share of the time budget is 0.015.
_FIRST_TIMING_SHARE = 0.01
# Seconds of two captures in processes of their own, and of the device's rates if they are not
# known. If less is left, nothing is predicted.
_PREDICTION_SECONDS = 3.0


class CandidateRace:
    """The race of one search.

    Args:
        task: the task as one rank has it.
        profile: its profile on the device.
        space: the task's candidates.
        fits: precision -> the ways in which its plans fit the memory; empty if everything surely
            fits.
        cost_model: the cost model.
        time_budget: the seconds that may be spent.
        request: the request to the planner.

    Attributes:
        space: the candidates, with the refusals that the race brought.
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
    ) -> None:
        self.space = space
        self._task, self._request = task, request
        self._fits, self._cost_model, self._time_budget = fits, cost_model, time_budget
        batches = [profile.device.move(batch) for batch in profile.batches]
        self._timing_runs = TimingRuns(task, batches, lambda: self.seconds_left)
        self._way: dict[str, int] = {}
        self.why_not_compiled: str | None = None

    @property
    def timings(self) -> Mapping[Plan, Timing]:
        """Timings of all candidates, in the order in which they ran."""
        return self._timing_runs.timings

    def run(self) -> None:
        """Runs the whole race."""
        with contextlib.closing(self._timing_runs):
            self._run()

    def _run(self) -> None:
        if self._fitted(self.space.base) == self.space.base:  # plain eager itself, if that fits
            self._enter(self.space.base)
        self._enter_safe()
        for plan in self.eager_plans():
            self._try(plan)
        self._try_threads()
        self._try_compiled()
        self._try_graph()
        if not self._fits:  # a final holds several sessions, and a fitted plan has no room
            self._timing_runs.final(self.cost)

    def ranking(self) -> list[Timing]:
        """Returns the plans that ran, the cheapest first."""
        return sorted(
            (timing for timing in self.timings.values() if timing.step is not None), key=self.cost
        )

    def cost(self, timing: Timing) -> float:
        """Returns the seconds of the rest of the whole run under a candidate. What was compiled
        here is not compiled again, except in ranks, which are processes of their own."""
        assert timing.step is not None
        return timing.step * self.num_steps + (
            timing.startup if self._request.world_size > 1 else 0.0
        )

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
            _GUARD_STEPS * (self.first_step or 0.0), 0.3 * self._time_budget.total
        )

    def eager_plans(self) -> list[Plan]:
        """Returns the combinations of precision and memory format on top of the safe choices, the
        likeliest to be fast first."""
        options, safe = self.space.options, self.space.safe
        plans = [
            fitted
            for precision in reversed(options["precision"])
            for memory_format in reversed(options["memory_format"])
            if (fitted := self._fitted(safe.pin(precision=precision, memory_format=memory_format)))
            is not None
        ]
        expected = [self._cost_model.expected(plan) for plan in plans]
        order = [step for step in expected if step is not None]
        if len(order) < len(plans):
            return plans
        return [plan for _, plan in sorted(zip(order, plans, strict=True), key=lambda p: p[0])]

    # ---- timing runs

    def _fitted(self, plan: Plan) -> Plan | None:
        """Returns the plan with the knobs that make it fit; None if none do."""
        fit = self._fits.get(plan.precision)
        return plan if fit is None else fit.applied(plan, self._way.get(plan.precision, 0))

    def _enter_safe(self) -> None:
        """Runs the safe choices in every way in which they fit; the other candidates use the
        fastest of these ways."""
        safe = self.space.safe
        fit = self._fits.get(safe.precision)
        if fit is None:
            self._enter(safe)
            return
        timings = [
            (number, self._enter(plan))
            for number in range(len(fit.ways))
            if (plan := fit.applied(safe, number))
        ]
        ran = [(number, timing) for number, timing in timings if timing.step is not None]
        if ran:
            self._way[safe.precision] = min(ran, key=lambda item: self.cost(item[1]))[0]

    def _enter(self, plan: Plan) -> Timing:
        is_known = self._time_budget.run_seconds is not None or self._request.is_free
        timing = self._timing_runs.run(
            plan,
            seconds=min(_MOST_TIMING_SECONDS, max(0.02, 0.05 * self._time_budget.total)),
            most_share=1.0 if is_known else _FIRST_TIMING_SHARE,
        )
        if timing.step is not None:
            self._cost_model.learn(plan, timing.step)
        if (
            self._request.seconds is None
            and timing.step is not None
            and self._time_budget.run_seconds is None
        ):
            self._time_budget.run_seconds = timing.step * self._task.num_steps
        first, best = self.first_step, self._timing_runs.best
        if first and best is not None and best.step is not None:
            self._time_budget.note_gain(1.0 - best.step / first)
        if self.seconds_left > _PREDICTION_SECONDS:
            self._cost_model.is_asked = True
        return timing

    def _try(self, plan: Plan, *, startup: float = 0.0) -> Timing | None:
        """Runs a candidate, if there is time left for it."""
        best = self._timing_runs.best
        step = best.step if best is not None and best.step is not None else 0.0
        if plan in self.timings:
            return self.timings[plan]
        if self._is_too_large(plan):
            return None
        return self._enter(plan) if self.seconds_left >= 2 * step + startup else None

    def _is_too_large(self, plan: Plan) -> bool:
        """Checks whether the plan's memory is known and does not fit."""
        return bool(self._fits) and self._cost_model.verdict(plan) == "NO"

    def _try_threads(self) -> None:
        """Halves the number of threads for as long as that helps."""
        for threads in self.space.options["threads"][1:]:
            best = next(iter(self.ranking()), None)
            if best is None:
                return
            timing = self._try(best.plan.pin(threads=threads))
            if timing is None or timing.step is None or self.cost(timing) > self.cost(best):
                fewer = [value for value in self.space.options["threads"][1:] if value < threads]
                why = (
                    "planning may cost no more"
                    if timing is None
                    else f"{threads} are no faster than more are"
                )
                self._refuse(*(Refusal(knob="threads", value=value, reason=why) for value in fewer))
                return

    def _try_compiled(self) -> None:
        """Compiles the best eager candidate, if the possible saving exceeds the cost; then the
        others, as long as it helps and time is left."""
        best = next(iter(self.ranking()), None)
        if True not in self.space.options["compile"] or best is None or best.step is None:
            return
        for plan in dict.fromkeys([best.plan, *self.eager_plans()]):
            compiled = plan.pin(compile=True)
            startup = self._cost_model.startup(compiled)
            saved = _COMPILE_GAIN * self.num_steps * best.step
            if not self._request.is_free and saved < _WORTH_STARTUPS * startup:
                self._stop_compiling(
                    f"it takes about {startup:.0f} s and may save {saved:.0f} s of this run"
                )
                return
            if self._is_too_large(compiled):
                self._stop_compiling("compiled it does not fit the budget")
                if self._request.is_free:
                    continue
                return
            mark = time.perf_counter()
            timing = self._try(compiled, startup=startup)
            if timing is None:
                left = max(0.0, self.seconds_left)
                self._stop_compiling(
                    f"it takes about {startup:.0f} s, and planning may cost {left:.1f} s more"
                )
                return
            if timing.step is not None and self.cost(timing) <= self.cost(self.ranking()[0]):
                self._time_budget.note_reused(min(timing.startup, time.perf_counter() - mark))
            elif not self._request.is_free:
                self._stop_compiling("another compiled candidate was no faster")
                return

    def _try_graph(self) -> None:
        """Records the steps of the best candidate, which costs about two of them."""
        best = next(iter(self.ranking()), None)
        if True not in self.space.options["graph"] or best is None:
            return
        if self._fits:
            reason = "memory is short, and a graph holds a step's memory of its own"
            self._refuse(Refusal(knob="graph", value=True, reason=reason))
        else:
            self._try(best.plan.pin(graph=True))

    def _stop_compiling(self, reason: str) -> None:
        self.why_not_compiled = reason
        if not any(plan.compile for plan in self.timings):
            self._refuse(Refusal(knob="compile", value=True, reason=reason))

    def _refuse(self, *refusals: Refusal) -> None:
        self.space = dataclasses.replace(self.space, refused=(*self.space.refused, *refusals))
