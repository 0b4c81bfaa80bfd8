"""Planning for a device that is not here: everything is predicted, nothing is measured."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator

from volano.device import Device, KnownDevice, find_device, other_variants
from volano.device.isolated import IsolatedError
from volano.plan import Plan
from volano.plan.explanation import Candidate, Explanation
from volano.plan.prediction import TimePrediction
from volano.planner.memory.predict import Prediction, needed_bytes, predict, verdict
from volano.planner.parity.guard import ParityGuard
from volano.planner.request import PlanRequest
from volano.planner.search.candidates import admissible
from volano.planner.task_profile import TaskProfile, profile_task
from volano.planner.time.roofline import Rates, predict_time
from volano.task import Task

# Halves of the batch that are looked at: a step in 64 parts is slow, and says that the device is too small.
_MOST_HALVINGS = 6


def explain_absent(task: Task, name: str, request: PlanRequest) -> Explanation:
    """What would be chosen on a device of the catalogue, and whether it fits there.

    Raises:
        UsageError: no such device is known.
        PlanError: a pin is not a knob or a value of one.
    """
    return _Absent(task, find_device(name), name, request).explanation()


class AbsentDevice(Device):
    """A device of the catalogue, as far as candidates ask."""

    def __init__(self, known: KnownDevice) -> None:
        super().__init__("cpu")
        self.is_cpu = False
        self._known = known

    @property
    def name(self) -> str:
        """As torch would write it there."""
        return self._known.torch_type

    def supports(self, precision: str) -> bool:
        """Whether the catalogue has a rate for it."""
        return precision in self._known.flops


class _Absent:
    """One answer."""

    def __init__(self, task: Task, known: KnownDevice, name: str, request: PlanRequest) -> None:
        self._started = time.perf_counter()
        self._task, self._known, self._request = task, known, request
        others = other_variants(name)
        smallest = min((known, *map(find_device, others)), key=lambda device: device.memory)
        self._budget = request.budget or smallest.memory
        here = profile_task(task, Device("cpu"))
        self._profile: TaskProfile = dataclasses.replace(here, device=AbsentDevice(known), why_not_compile=None)
        base = Plan.baseline(known.torch_type).pin(**request.pins)
        base = (
            base if "feed" in request.pins else base.pin(feed="resident" if here.resident_bytes is not None else "ring")
        )
        self._space = admissible(task, self._profile, base, pins=request.pins, forbidden=request.forbidden)
        self._guard = ParityGuard(task, Device("cpu"), lambda: 10.0)
        self._rates = Rates.of_known(known)
        self._predictions: dict[Plan, Prediction | None] = {}
        self._notices = [f"{name!r} is taken as {known.name}; there are also {', '.join(others)}"] if others else []
        if smallest.memory < known.memory and request.budget is None:
            self._notices.append(f"The memory is that of the smallest, {smallest.name}")

    def explanation(self) -> Explanation:
        """All of it."""
        found = sorted((self._candidate(plan) for plan in self._plans()), key=_preference)
        best = found[0]
        chosen = dataclasses.replace(best, status="chosen", reason=self._why(best))
        rest = tuple(self._beside(candidate, best) for candidate in found[1:])
        eager = next((c for c in found if c.plan == self._space.base), None)
        memory = self._predictions.get(_uncompiled(best.plan))
        needed = [needed_bytes(p) for p in self._predictions.values() if p is not None]
        return Explanation(
            task=self._task.name,
            device=self._known.torch_type,
            device_name=self._known.name,
            is_present=False,
            plan=best.plan,
            origin="predicted",
            num_steps=self._task.num_steps,
            num_examples=self._task.batch_size,
            seconds={"plan": best.total, "eager": None if eager is None else eager.total},
            planning_seconds=time.perf_counter() - self._started,
            verdict=best.verdict,
            budget=self._budget,
            memory=None if memory is None else memory.memory,
            needed=None if best.verdict == "FITS" or not needed else min(needed),
            time=best.predicted,
            measured=None,
            candidates=(chosen, *rest),
            refused=self._space.refused,
            notices=tuple(self._notices),
        )

    def _plans(self) -> Iterator[Plan]:
        """Every combination, in the whole batch; smaller parts and recomputation where that does not fit."""
        options, safe = self._space.options, self._space.safe
        yield self._space.base
        for precision, memory_format, compiled in itertools.product(
            options["precision"], options["memory_format"], options["compile"]
        ):
            plan = safe.pin(precision=precision, memory_format=memory_format, compile=compiled)
            yield from self._until_it_fits(plan)

    def _until_it_fits(self, plan: Plan) -> Iterator[Plan]:
        yield plan
        if self._verdict(plan) in ("FITS", None):
            return
        may_recompute = (
            self._profile.blocks
            and "recompute" not in self._request.pins
            and "blocks" not in self._request.forbidden.get("recompute", ())
        )
        ways = [{}, {"recompute": "blocks"}] if may_recompute else [{}]
        for levers in ways:
            for size in self._sizes(plan):
                leaner = plan.pin(**levers, micro_batch=size)
                if leaner == plan:
                    continue
                yield leaner
                if self._verdict(leaner) == "FITS":
                    break

    def _sizes(self, plan: Plan) -> Iterator[int | None]:
        yield plan.micro_batch
        stands = "micro_batch" in self._request.pins or self._task.tolerance == "exact"
        if stands or not self._guard.divisible.yes:
            return
        size = self._task.batch_size
        for _ in range(_MOST_HALVINGS):
            if size == 1:
                return
            size = -(-size // 2)
            yield size

    # ---- figures

    def _prediction(self, plan: Plan) -> Prediction | None:
        plan = _uncompiled(plan)
        if plan not in self._predictions:
            try:
                self._predictions[plan] = predict(self._task, plan, target="accelerator", batch=self._profile.batch)
            except IsolatedError as error:
                self._predictions[plan] = None
                text = f"not predicted: {error.reason}"
                if text not in self._notices:
                    self._notices.append(text)
        return self._predictions[plan]

    def _verdict(self, plan: Plan) -> str | None:
        prediction = self._prediction(plan)
        return None if prediction is None else verdict(prediction, self._budget)

    def _candidate(self, plan: Plan) -> Candidate:
        prediction = self._prediction(plan)
        if prediction is None:
            return Candidate(plan=plan, status="untried", reason="it cannot be predicted")
        predicted: TimePrediction = predict_time(prediction.operations, self._rates, plan)
        return Candidate(
            plan=plan,
            status="slower",
            reason="",
            predicted=predicted,
            startup=predicted.startup,
            total=predicted.startup + predicted.step * self._task.num_steps,
            memory_bytes=prediction.memory.peak,
            verdict=verdict(prediction, self._budget),
        )

    def _why(self, best: Candidate) -> str:
        if best.verdict == "FITS":
            return "predicted to be the fastest that fits"
        return "nothing certainly fits; this is the leanest" if best.verdict else "nothing could be predicted"

    def _beside(self, candidate: Candidate, best: Candidate) -> Candidate:
        if candidate.total is None or not best.total:
            return candidate
        if candidate.verdict != "FITS" and best.verdict == "FITS":
            certain = "does not fit" if candidate.verdict == "NO" else "may not fit"
            return dataclasses.replace(candidate, status="memory", reason=f"it {certain} the budget")
        return dataclasses.replace(candidate, reason=f"{candidate.total / best.total:.2f}x the chosen one's time")


def _uncompiled(plan: Plan) -> Plan:
    # Of a compiled plan the bytes of the eager step are an upper bound; its operations are those that fuse.
    return plan.pin(compile=False)


def _preference(candidate: Candidate) -> tuple[int, float]:
    """What fits before what may, by time; where nothing does, the leanest first."""
    order = {"FITS": 0, "UNCERTAIN": 1, "NO": 2, None: 3}[candidate.verdict]
    if order == 0:
        return 0, candidate.total or 0.0
    return order, float(candidate.memory_bytes or 0)
