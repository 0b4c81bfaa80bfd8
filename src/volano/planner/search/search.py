"""The search for a plan, from the first question to the decision.

1. What the task and the device admit (candidates.py), and how the data reaches the device
   (choose_feed.py).
2. Whether it was planned before (cache/, reuse.py).
3. Which of it fits the memory (cost_model.py, fit_memory.py).
4. If no run waits: which is predicted to be the fastest (predicted.py), and whether a race pays.
5. Which is fastest, by running it (race.py, timing.py), as far as the run's length pays for it
   (time_budget.py).
6. Whether it computes the same (parity/); the cheapest that does is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import time
from collections.abc import Mapping
from typing import Any

from volano.device import Device, repeatable_products
from volano.errors import PlanError
from volano.plan import Plan, changes_text
from volano.planner.cache.fingerprint import fingerprint
from volano.planner.cache.store import remember
from volano.planner.cost_model import CostModel
from volano.planner.parity.batch_split import said_of_split
from volano.planner.parity.guard import ParityGuard
from volano.planner.request import PlanRequest, PlanResult
from volano.planner.search.batch_share import share_to_time
from volano.planner.search.candidates import admissible
from volano.planner.search.choose_feed import choose_feed
from volano.planner.search.explain import Findings, answer
from volano.planner.search.fit_memory import Fit, fit_each
from volano.planner.search.per_rank import share_of_rank
from volano.planner.search.predicted import possible_gain, predicted_candidates
from volano.planner.search.race import CandidateRace
from volano.planner.search.reuse import recalled
from volano.planner.search.time_budget import TimeBudget
from volano.planner.search.timing import Timing
from volano.planner.task_profile import filling_steps, network_figures, profile_task, said_of_prefix
from volano.record.format import count_text
from volano.task import Task

# The shortest run that is raced if its length is given in seconds: a hundredth of less is too short
# for two steps of most tasks.
_LEAST_SECONDS = 30.0
# The longest race for an explanation that was asked for, and that was not.
_MOST_EXPLAIN_SECONDS, _MOST_UNASKED_SECONDS = 120.0, 30.0
_KEPT_SHARE = 0.9  # of what is said: the last candidate and the guard may take longer than expected
# The share of the run that a candidate must save if it was timed on parts of batches, once: less is
# noise.
_LEAST_SAVED_ON_PARTS = 0.05
# Seconds of a compiled plan's capture, for its memory.
_LOOK_SECONDS = 10.0
# Seconds of the steps by which predictions are corrected before they are told.
_MOST_PROBE_SECONDS = 1.0
# With fewer for all of planning, no candidate can be timed and checked.
_LEAST_PLANNING_SECONDS = 1.0
# Seconds for the guard if nothing is raced: the run's length is unknown, or it is short.
_UNRACED_GUARD_SECONDS = 3.0


def find_plan(task: Task, request: PlanRequest) -> PlanResult:
    """Finds the fastest admissible plan for a task on a device of this machine.

    Raises:
        PlanError: a pin is not a knob or a value of one, or nothing fits the budget.
        UsageError: the device is not on this machine.
        VolanoError: the task itself cannot be run, with the run's own message.
    """
    with repeatable_products(request.is_deterministic):
        found = _Search(task, request).found()
    # The search's objects refer to one another in cycles that hold batches, sessions and
    # references; the run needs that memory.
    gc.collect()
    Device(request.device).release_memory()
    return found


class _Search:
    """The state of one search; its methods stand in the order of the search."""

    def __init__(self, task: Task, request: PlanRequest) -> None:
        self._started = time.perf_counter()
        self._whole_task, self._request = task, request
        self._most_seconds = (
            math.inf if request.planning_seconds is None else request.planning_seconds
        )
        device = Device(request.device)
        base = Plan.baseline(device.name if request.world_size == 1 else device.kind).pin(
            **request.pins
        )
        base, self._reasons = choose_feed(
            task, base, request.pins,
            world_size=request.world_size, budget=request.budget, forbidden=request.forbid,
        )  # fmt: skip
        # One rank's share is timed; `base` keeps the number of threads of the ranks' plan.
        self._threads = base.threads
        self._task, base = share_of_rank(task, base, request.world_size)
        self._profile = profile_task(self._task, device)
        self._space = admissible(
            self._task, self._profile, base, pins=request.pins, forbidden=request.forbid,
            world_size=request.world_size, budget=request.budget,
        )  # fmt: skip
        self._time_budget = TimeBudget(
            run_seconds=request.seconds, is_free=request.is_free,
            most_seconds=min(_MOST_EXPLAIN_SECONDS, self._most_seconds),
        )  # fmt: skip
        self._cost_model = CostModel(self._task, self._profile, budget=request.budget)
        self._guard = ParityGuard(self._task, device, lambda: self._time_budget.left)
        self._fits: dict[str, Fit] = {}

    def found(self) -> PlanResult:
        """Finds the plan, by the shortest way that is honest for this run."""
        task, key = self._task, self._fingerprint()
        if key is not None:
            before = recalled(key, self._space, self._request, task.num_steps, task.steps_per_epoch)
            if before is not None:
                return self._ended(before)
        nothing_fits = self._fit_into_memory()
        if nothing_fits is not None:
            return self._told(nothing_fits)
        if all(len(values) == 1 for values in self._space.options.values()):
            return self._without_race("given")
        if not self._measures:
            return self._without_race("trusted")
        if self._is_short():
            seconds, steps = self._request.seconds, self._task.num_steps
            length = count_text(steps, "step") if seconds is None else f"{seconds:.0f} s"
            why = f"the run is too short to measure candidates: {length}"
            return self._without_race("trusted", why)
        race = CandidateRace(
            self._task, self._profile, self._space, self._fits, self._cost_model,
            self._time_budget, self._request, self._share or 1.0,
        )  # fmt: skip
        if self._request.is_free and (predicted := self._predicted(race)) is not None:
            return predicted
        return self._raced(race, key)

    @property
    def _measures(self) -> bool:
        """Returns whether anything that was measured may be told."""
        return self._request.is_free or bool(self._request.is_raced)

    def _raced(self, race: CandidateRace, key: str | None) -> PlanResult:
        """Runs the race, and returns its answer."""
        race.run()
        more: list[str] = []
        if race.share < 1.0:
            if not race.ranking():  # an objective that needs whole batches
                return self._without_race("trusted")
            more.append(
                f"steps were timed on {race.share:.0%} of each batch, since the run has only "
                f"{count_text(self._task.num_steps, 'step')}"
            )
        if race.has_ended_early:
            more.append("planning ended early: nothing was left that could be faster")
        self._cost_model.keep()
        findings = self._first_that_agrees(race)
        left = self._time_budget.left
        if self._request.is_free and findings.chosen.compile and left > _LOOK_SECONDS:
            self._cost_model.look_into(findings.chosen)
        self._cost_model.is_asked = self._cost_model.is_asked and (
            self._request.is_free or left > 0
        )
        found = answer(findings)
        assert found.explanation is not None
        if key is not None and race.ranking() and race.share == 1.0:
            problem = remember(key, found.explanation, may_split=found.may_split)
            more += [] if problem is None else [f"the plan could not be remembered: {problem}"]
        return self._ended(found, *more)

    def _predicted(self, race: CandidateRace) -> PlanResult | None:
        """Predicts every candidate, which is the answer unless a race is wanted; returns None if it
        is to be run, after it was said how long it takes."""
        is_raced = self._request.is_raced
        most = _MOST_EXPLAIN_SECONDS if is_raced else _MOST_UNASKED_SECONDS
        self._request.observer.on_phase("predicting memory and time of the candidates")
        race.ask()
        self._correct_predictions(race)
        eager = self._cost_model.time(self._space.base)
        if eager is None:  # of a step that cannot be captured
            return self._without_race("trusted") if is_raced is False else self._begin(most)
        num_steps = self._task.num_steps
        if self._request.seconds is not None:
            num_steps = max(1, int(self._request.seconds / eager.step))
        candidates = predicted_candidates(
            race.plans(), self._cost_model, num_steps,
            filling_steps=filling_steps(self._task), is_tight=bool(self._fits),
        )  # fmt: skip
        more: Any = {"predicted": candidates, "num_steps": num_steps}
        found = answer(self._findings(candidates[0].plan, "predicted", None, **more))
        if is_raced is False:
            return self._ended(found)
        gain = possible_gain(candidates, eager.step * num_steps, self._space)
        expected = race.expected_seconds(num_steps)
        if is_raced is None and gain < expected:
            notice = f"no race: it would take about {expected:.0f} s, and could save {gain:.0f} s"
            notice += " of such a run at most; `race` runs it in any case"
            return self._ended(found, notice=notice)
        explanation = self._ended(found).explanation
        assert explanation is not None
        self._request.observer.on_explanation(explanation)
        return self._begin(most if is_raced else min(most, gain), expected)

    def _correct_predictions(self, race: CandidateRace) -> None:
        """Corrects predictions by steps that were timed already, or by some of plain eager and of
        the safe choices, on which the others stand, that take no more than a moment, unless nothing
        is to be run."""
        timed = self._request.timed
        if not timed and self._request.is_raced is not False:
            with contextlib.closing(race):
                probes = race.probe(_MOST_PROBE_SECONDS)
            timed = {probe.plan: probe.step for probe in probes if probe.step is not None}
        self._cost_model.correct(timed)

    def _begin(self, most_seconds: float, expected: float | None = None) -> None:
        """Says how long the race will take, and lets it take no longer."""
        about = "" if expected is None else f"about {min(expected, most_seconds):.0f} s, "
        self._request.observer.on_phase(
            f"racing the candidates: {about}at most {most_seconds:.0f} s"
        )
        self._time_budget.restart(_KEPT_SHARE * most_seconds)

    def _fingerprint(self) -> str | None:
        """Returns the name under which the plan is remembered; None if it is not."""
        request = self._request
        # If memory is tight, an answer that was found at another moment does not hold now.
        asks_for_room = self._cost_model.is_tight and request.budget is None
        if not request.recalls or not self._measures or asks_for_room:
            return None
        return fingerprint(
            self._task, self._profile, self._space.base, pins=request.pins,
            forbidden=request.forbid, budget=request.budget, world_size=request.world_size,
        )  # fmt: skip

    def _fit_into_memory(self) -> Fit | None:
        """Finds the ways to fit, for each precision. Returns the leanest if nothing fits a given
        budget."""
        if not self._cost_model.is_tight:
            return None
        self._fits = fit_each(self._task, self._space, self._cost_model, self._request, self._guard)
        if ways := [way for found in self._fits.values() for way in found.ways]:
            largest = max(way.get("micro_batch") or self._task.batch_size for way in ways)
            self._guard.most_examples = max(2, largest // 2)  # float64 takes twice as much
            return None
        leanest = min(self._fits.values(), key=lambda found: found.needed)
        if self._request.budget is not None:
            return leanest
        # No budget was given, and estimates of the free memory are no reason to refuse a run.
        self._fits = {}
        needed, free = (
            f"{value / 2**20:,.0f} MiB" for value in (leanest.needed, self._cost_model.budget or 0)
        )
        self._reasons.append(f"memory: the leanest plan may need {needed}, and {free} are free")
        return None

    def _told(self, nothing_fits: Fit) -> PlanResult:
        """Reports that nothing fits: returns the answer for an explanation, raises if a run waits.

        Raises:
            PlanError: a run waits for the plan.
        """
        assert self._cost_model.budget is not None
        if not self._request.is_free:
            raise nothing_fits.error(self._cost_model.budget)
        safe = self._space.safe
        return self._ended(answer(self._findings(safe, "predicted", None, too_large=nothing_fits)))

    def _is_short(self) -> bool:
        if self._request.is_free:
            return False
        seconds = self._request.seconds
        if self._most_seconds < _LEAST_PLANNING_SECONDS:
            return True
        return self._share is None if seconds is None else seconds < _LEAST_SECONDS

    @property
    def _share(self) -> float | None:
        """The share of each batch on which candidates are timed; None if the run is too short."""
        is_fitted = self._fits or self._request.world_size > 1
        if self._request.is_free or self._request.seconds is not None:
            return 1.0
        is_open = len(self._space.options["precision"]) > 1
        return share_to_time(
            self._task.num_steps, self._task.batch_size,
            is_cpu=self._profile.device.is_cpu and not is_fitted,
            narrow_speed=self._profile.bf16_speed if is_open else 1.0,
        )  # fmt: skip

    def _without_race(self, origin: str, *more: str) -> PlanResult:
        plan = self._space.base if origin == "given" else self._space.safe
        if not self._request.is_free:
            self._guard.most_seconds = min(_UNRACED_GUARD_SECONDS, self._most_seconds)
        passed: dict[Plan, Mapping[str, float]] = {}
        if not self._fits_as_it_is(plan):
            plan, figures = self._first_that_fits(plan)
            passed[plan] = figures
        self._cost_model.verdict(plan)
        # A run that is too short for a race pays no seconds for predictions of plans that it does
        # not take.
        self._cost_model.is_asked &= self._request.is_free
        return self._ended(answer(self._findings(plan, origin, None, passed=passed)), *more)

    def _first_that_fits(self, plan: Plan) -> tuple[Plan, Mapping[str, float]]:
        """Returns the plan with knobs that make it fit, and the guard's figures; in another
        precision if none do in its own."""
        struck: dict[Plan, tuple[str, Mapping[str, float]]] = {}
        for precision, fits in self._fits.items():
            for number in range(len(fits.ways)):
                fitted = fits.applied(plan.pin(precision=precision), number)
                assert fitted is not None
                parity = self._guard.parity(fitted)
                if parity.passed:
                    return fitted, parity.figures
                struck[fitted] = parity.reason, parity.figures
        return self._unguarded(struck), {}

    def _first_that_agrees(self, race: CandidateRace) -> Findings:
        """Returns the cheapest candidate that computes the same as plain eager."""
        struck: dict[Plan, tuple[str, Mapping[str, float]]] = {}
        passed: dict[Plan, Mapping[str, float]] = {}
        faulty: list[tuple[str, Any]] = []
        unchecked: list[Plan] = []
        chosen: Plan | None = None
        ranking = race.ranking()
        has_trusted = any(self._is_trusted(timing.plan, race) for timing in ranking)
        for timing in ranking:
            plan = timing.plan
            if (reason := self._why_not_checked(plan, faulty)) is not None:
                struck[plan] = (reason, {})
                continue
            if self._is_trusted(plan, race):
                chosen = plan
                break
            if has_trusted and not self._is_worth_checking(timing, race):
                unchecked.append(plan)
                continue
            self._request.observer.on_phase(
                f"checking that {changes_text(plan, self._space.base)} computes the same"
            )
            parity = self._guard.parity(plan)
            if parity.passed:
                passed[plan] = parity.figures
                chosen = plan
                break
            # Up to a dozen more checks, each of which may compile.
            can_ask = self._time_budget.left > 0
            knobs = self._guard.knobs_at_fault(plan) if can_ask else ()
            fault = f"; at fault: {' with '.join(knobs)}" if knobs else ""
            struck[plan] = (f"{parity.reason}{fault}", parity.figures)
            if len(knobs) == 1:
                faulty.append((knobs[0], getattr(plan, knobs[0])))
        chosen = chosen or self._unguarded(struck)
        return self._findings(
            chosen, "raced", race, struck=struck, passed=passed, unchecked=unchecked
        )

    def _why_not_checked(self, plan: Plan, faulty: list[tuple[str, Any]]) -> str | None:
        """Returns why a plan is rejected without a look at it."""
        for knob, value in faulty:
            if getattr(plan, knob) == value:
                return f"it has the knob at fault, {knob}={value}"
        is_large = self._fits and self._cost_model.verdict(plan) == "NO"
        return "it does not fit the budget" if is_large else None

    def _is_worth_checking(self, timing: Timing, race: CandidateRace) -> bool:
        """Checks whether there is time for the guard, and the run gains more than it takes."""
        left = self._time_budget.left
        if left <= 0 or self._request.is_free:
            return left > 0
        trusted = (t for t in race.ranking() if self._is_trusted(t.plan, race))
        saved = (cost := race.cost(next(trusted))) - race.cost(timing)
        if race.share < 1.0 and saved < _LEAST_SAVED_ON_PARTS * cost:
            return False
        return race.pays_for_guard(saved)

    def _is_trusted(self, plan: Plan, race: CandidateRace) -> bool:
        is_small = not self._fits or self._cost_model.verdict(plan) != "NO"
        return is_small and race.space.is_trusted(plan)

    def _unguarded(self, struck: Mapping[Plan, tuple[str, Mapping[str, float]]]) -> Plan:
        """Returns the plan that is taken if no candidate ran, or none that ran agrees: plain eager,
        if that fits.

        Raises:
            PlanError: plain eager does not fit, and all plans that fit compute something else.
        """
        base, budget = self._space.base, self._request.budget
        if not struck or budget is None or self._fits_as_it_is(base):
            return base
        reasons = dict.fromkeys(reason for reason, _ in struck.values())
        raise PlanError(
            "A plan that fits the budget must compute the same as plain eager PyTorch",
            got="; ".join(reasons),
            remedy=f"Give a budget above {budget:,} bytes",
        )

    def _fits_as_it_is(self, plan: Plan) -> bool:
        fits = self._fits.get(plan.precision)
        return fits is None or fits.applied(plan) == plan

    def _findings(
        self, chosen: Plan, origin: str, race: CandidateRace | None, **more: Any
    ) -> Findings:
        more.setdefault("num_steps", self._task.num_steps if race is None else race.num_steps)
        return Findings(
            task=self._whole_task, request=self._request, profile=self._profile,
            cost_model=self._cost_model, race=race,
            space=self._space if race is None else race.space, chosen=chosen, origin=origin,
            allowed=self._time_budget.total,
            may_split=self._guard.may_split, **more,
        )  # fmt: skip

    def _said_of_pinned_split(self) -> tuple[str, ...]:
        """Says that a pinned micro-batch changes the loss. One that the search chooses does not."""
        size = self._request.pins.get("micro_batch")
        if size is None or size >= self._task.batch_size or self._guard.divisible.yes:
            return ()
        return (said_of_split(size, self._guard.divisible),)

    def _ended(self, found: PlanResult, *more: str, notice: str | None = None) -> PlanResult:
        """Completes the answer with all its reasons, and with threads as the ranks' plan names
        them."""
        plan = found.plan
        if self._request.world_size > 1 and plan.threads == self._space.base.threads:
            plan = plan.pin(threads=self._threads)
        assert found.explanation is not None
        said = said_of_prefix(self._task, self._profile, found.plan, found.explanation.num_steps)
        more += (*self._said_of_pinned_split(), *said)
        explanation = dataclasses.replace(
            found.explanation,
            task=self._whole_task.name,
            plan=plan,
            notices=(*found.explanation.notices, *said, *([notice] if notice else [])),
            planning_seconds=time.perf_counter() - self._started,
            network=network_figures(self._whole_task, self._profile, found.explanation),
        )
        reasons = (*self._reasons, *found.reasons, *more)
        return dataclasses.replace(found, plan=plan, explanation=explanation, reasons=reasons)
