"""Plans for an absent device: everything is predicted, nothing is measured."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator

from volano.device import AbsentDevice, Device, KnownDevice, find_device, other_variants
from volano.plan import Plan
from volano.plan.explanation import Explanation, Refusal
from volano.plan.prediction import TimePrediction
from volano.planner.cache.fingerprint import fingerprint
from volano.planner.cost_model import CaptureKey, CostModel
from volano.planner.memory.trace_step import TracedStep
from volano.planner.parity.guard import ParityGuard
from volano.planner.request import PlanRequest, PlanResult
from volano.planner.search.candidates import CandidateSpace, admissible
from volano.planner.search.fit_memory import micro_batches, why_whole_batch
from volano.planner.search.predicted import predicted_candidates
from volano.planner.task_profile import (
    TaskProfile,
    filling_steps,
    network_figures,
    profile_task,
    said_of_prefix,
)
from volano.planner.time.roofline import Rates
from volano.task import Task
from volano.task.code_digest import code_digest

# The number of halvings of the batch that are tried: a step in 64 parts is slow, and shows that the
# device is too small.
_MOST_HALVINGS = 6
# Knobs with a start-up of their own, of which nothing predicts what they save.
_LEFT_TO_A_RACE = ("graph", "conv_benchmark", "compile_mode")
# What was captured in this process, by task: choosing a network and a number of steps asks for the
# same step many times, and a capture takes seconds.
_MOST_TASKS = 16
_captures: dict[str, dict[CaptureKey, TracedStep]] = {}


def explain_absent(task: Task, name: str, request: PlanRequest) -> Explanation:
    """Returns the plan that would be chosen on a device of the catalogue, and whether it fits
    there.

    Raises:
        UsageError: the catalogue has no such device.
        PlanError: a pin is not a knob or a value of one.
    """
    return _Absent(task, find_device(name), name, request).explanation()


class NotPredictedError(Exception):
    """The error of a step that cannot be captured, so that nothing is known of it elsewhere."""


def absent_plan(task: Task, request: PlanRequest) -> PlanResult:
    """Returns the plan that would be chosen on the device that a request names, with the predicted
    seconds of a step; see :func:`explain_absent`. If nothing may be raced, it is the one that a run
    there would take without measuring.

    Raises:
        NotPredictedError: nothing is predicted of the task.
    """
    assert request.on is not None
    if request.is_raced is False:
        absent = _Absent(task, find_device(request.on), request.on, request)
        if (predicted := absent.time(absent.safe)) is None:
            raise NotPredictedError
        return PlanResult(plan=absent.safe, step=predicted.step, startup=predicted.startup)
    found = explain_absent(task, request.on, request)
    best = found.candidates[0]
    if best.predicted is None:
        raise NotPredictedError
    return PlanResult(
        plan=best.plan, explanation=found, step=best.predicted.step, startup=best.predicted.startup
    )


def absent_step(task: Task, plan: Plan, request: PlanRequest) -> TimePrediction:
    """Returns the predicted seconds of a step on the device that a request names.

    Raises:
        NotPredictedError: it is not predicted.
    """
    assert request.on is not None
    found = _Absent(task, find_device(request.on), request.on, request).time(plan)
    if found is None:
        raise NotPredictedError
    return found


def budget_of(name: str, known: KnownDevice, request: PlanRequest) -> tuple[int, list[str]]:
    """Returns the bytes that a device may hold, as it was named, of its smallest variant if no
    budget is given; and what is said of that."""
    others, notices = other_variants(name), []
    smallest = min((known, *map(find_device, others)), key=lambda device: device.memory)
    if others:
        notices = [f"{name!r} is taken as {known.name}; there are also {', '.join(others)}"]
    if smallest.memory < known.memory and request.budget is None:
        notices.append(f"The memory is that of the smallest, {smallest.name}")
    return request.budget or smallest.memory, notices


def _captures_of(
    task: Task, profile: TaskProfile, base: Plan, request: PlanRequest, budget: int
) -> dict[CaptureKey, TracedStep]:
    """Returns what was captured of such a task before in this process, to which more is added."""
    alike = fingerprint(
        task, profile, base, pins=request.pins, forbidden=request.forbid, budget=budget,
        world_size=1,
    )  # fmt: skip
    parts = (task.model, task.optimizer, task.parameter_groups)
    key = " ".join([alike, *("" if part is None else code_digest(part) for part in parts)])
    if key not in _captures and len(_captures) >= _MOST_TASKS:
        del _captures[next(iter(_captures))]
    return _captures.setdefault(key, {})


def _left_to_a_race(space: CandidateSpace) -> tuple[Refusal, ...]:
    """Returns the values of knobs that a run there would race, and that are not predicted here."""
    return tuple(
        Refusal(knob=knob, value=value, reason="what it saves shows in a race there")
        for knob in _LEFT_TO_A_RACE
        for value in space.options[knob][1:]
    )


class _Absent:
    """The search for one absent device."""

    def __init__(self, task: Task, known: KnownDevice, name: str, request: PlanRequest) -> None:
        self._started = time.perf_counter()
        self._task, self._known, self._request = task, known, request
        self._budget, self._notices = budget_of(name, known, request)
        here = profile_task(task, Device("cpu"))
        self._profile: TaskProfile = dataclasses.replace(
            here, device=AbsentDevice(known), why_not_compile=None, bf16_speed=1.0
        )
        base = Plan.baseline(known.torch_type).pin(**request.pins)
        if "feed" not in request.pins:
            base = base.pin(feed="resident" if here.resident_bytes is not None else "ring")
        self._space = admissible(
            task,
            self._profile,
            base,
            pins=request.pins,
            forbidden=request.forbid,
            budget=self._budget,
        )
        self._guard = ParityGuard(task, Device("cpu"), lambda: 10.0)
        self._cost_model = CostModel(
            task, self._profile, budget=self._budget, rates=Rates.of_known(known),
            captures=_captures_of(task, here, base, request, self._budget),
        )  # fmt: skip

    def explanation(self) -> Explanation:
        """Returns the explanation of all candidates."""
        self._cost_model.capture([self._space.base, *self._whole_batches()])
        num_steps = self._num_steps()
        candidates = predicted_candidates(
            self._plans(),
            self._cost_model,
            num_steps,
            filling_steps=filling_steps(self._task),
            is_tight=True,
        )
        best = candidates[0]
        needed = [size for c in candidates if (size := self._cost_model.needed(c.plan)) is not None]
        said = said_of_prefix(self._task, self._profile, best.plan, num_steps)
        found = Explanation(
            task=self._task.name,
            device=self._known.torch_type,
            device_name=self._known.name,
            is_present=False,
            origin="predicted",
            num_steps=num_steps,
            num_examples=self._task.batch_size,
            planning_seconds=time.perf_counter() - self._started,
            budget=self._budget,
            memory=self._cost_model.memory(best.plan),
            needed=None if best.verdict == "FITS" or not needed else min(needed),
            refused=(*self._space.refused, *_left_to_a_race(self._space)),
            notices=(*self._notices, *said, *self._cost_model.notices),
            **Explanation.following_from(candidates, self._space.base),
        )
        return dataclasses.replace(found, network=network_figures(self._task, self._profile, found))

    @property
    def safe(self) -> Plan:
        """The plan of the choices that need no measuring."""
        return self._space.safe

    def time(self, plan: Plan) -> TimePrediction | None:
        """Returns the predicted seconds of a step; None if it cannot be captured."""
        return self._cost_model.time(plan)

    def _num_steps(self) -> int:
        """Returns the steps of the run: the task's, or those for which the given time is enough
        there."""
        seconds, num_steps = self._request.seconds, self._task.num_steps
        if seconds is None:
            return num_steps
        eager = self.time(self._space.base)
        return num_steps if eager is None else max(1, int(seconds / eager.step))

    def _plans(self) -> Iterator[Plan]:
        """Returns every combination of knobs in the whole batch; adds smaller micro-batches and
        recomputation if that does not fit."""
        yield self._space.base
        for plan in self._whole_batches():
            yield from self._until_it_fits(plan)

    def _whole_batches(self) -> Iterator[Plan]:
        """Returns every combination of knobs that fits no memory."""
        options, safe = self._space.options, self._space.safe
        for precision, memory_format, compiled in itertools.product(
            options["precision"], options["memory_format"], options["compile"]
        ):
            plan = safe.pin(precision=precision, memory_format=memory_format)
            yield plan.pin(compile=True, prefix="computed") if compiled else plan

    def _until_it_fits(self, plan: Plan) -> Iterator[Plan]:
        yield plan
        if self._cost_model.verdict(plan) in ("FITS", None):
            return
        pins, forbidden = self._request.pins, self._request.forbid
        may_recompute = (
            self._profile.blocks
            and "recompute" not in pins
            and "blocks" not in forbidden.get("recompute", ())
        )
        for knobs in [{}, {"recompute": "blocks"}] if may_recompute else [{}]:
            sizes = micro_batches(
                self._task.batch_size, plan, why_whole_batch(self._task, pins), self._guard
            )
            for size in itertools.islice(sizes, 1 + _MOST_HALVINGS):
                leaner = plan.pin(**knobs, micro_batch=size)
                if leaner == plan:
                    continue
                yield leaner
                if self._cost_model.verdict(leaner) == "FITS":
                    break
