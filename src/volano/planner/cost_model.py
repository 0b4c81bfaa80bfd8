"""The cost model: predictions for plans before they run. Each is made once, from captures that
several plans share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch

from volano.device import Device, describe_machine
from volano.device.isolated import IsolatedError
from volano.errors import reason_of
from volano.plan import Plan, knobs_with
from volano.plan.explanation import MemoryVerdict
from volano.plan.prediction import MemoryPrediction, TimePrediction
from volano.planner.memory.predict import (
    Prediction,
    needed_bytes,
    prediction_of,
    trace_each,
    verdict,
)
from volano.planner.memory.trace_step import TracedStep, TraceTarget
from volano.planner.task_profile import TaskProfile
from volano.planner.time.calibration import Calibration
from volano.planner.time.compile_time import CompileTime
from volano.planner.time.device_rates import keep_calibration, kept_calibration, rates_of
from volano.planner.time.roofline import Rates, predict_time, rates_needed
from volano.task import Task, num_bytes, tensors_of
from volano.training.prefix.feature_room import FeatureRoom

# Parameters, gradients, two moments, and activations of twice as much: if six times the parameters
# plus a hundred times the batch, and the activations of a batch of indices, stay below this share
# of the free memory, the step surely fits and nothing is captured for it.
_PARAMETER_COPIES, _BATCH_COPIES, _PLENTY = 6, 100, 0.25
_INDICES = (torch.int32, torch.int64)
# Seconds of compiling, if nothing was captured: 3 to 26 s were measured on two cores (docs/log.md).
COMPILE_SECONDS = 12.0
# The knobs on which a capture depends, in addition to the task. The allocator adds to its memory
# afterwards.
_CAPTURED = tuple(knob for knob in knobs_with("is_captured") if knob != "allocator")
CaptureKey = tuple[object, ...]


class CostModel:
    """The predictions for the plans of one task on a device.

    Args:
        task: the task as one rank has it.
        profile: the task's profile on the device.
        budget: bytes that the training may hold; None stands for what is free on the device.
        rates: the rates of an absent device; then nothing is calibrated, and a compiled plan is
            taken to hold what its eager step does, an upper bound. None measures those rates of the
            device here that are needed, when they are.
        captures: captures of the same task that were made before, to which this model's are added;
            None has none.

    Attributes:
        profile: the profile, as given.
        is_asked: whether captures are made; each takes a second or two, which a short run does not
            pay for. What is known already is returned in any case.
        looks_into_compiled: whether the memory of compiled plans is predicted, which takes several
            seconds each.
        notices: notices for the user.
    """

    def __init__(
        self,
        task: Task,
        profile: TaskProfile,
        *,
        budget: int | None,
        rates: Rates | None = None,
        captures: dict[CaptureKey, TracedStep] | None = None,
    ) -> None:
        self._task, self.profile = task, profile
        self._given_budget = budget
        self.budget = budget if budget is not None else profile.device.free_bytes()
        self.is_asked = self.looks_into_compiled = self.is_tight
        self.notices: list[str] = []
        self._target: TraceTarget = "cpu" if profile.device.is_cpu else "accelerator"
        self._kept_captures = {} if captures is None else captures
        self._captures: dict[CaptureKey, TracedStep | None] = {**self._kept_captures}
        self._times: dict[Plan, TimePrediction | None] = {}
        self._is_here = rates is None
        self._rates = rates
        self._measured: frozenset[str] = frozenset()
        self._name = describe_machine(profile.device).device_name if rates is None else rates.name
        # Shown predictions are by what was known before the search, for all plans alike, in
        # whatever order they are asked for; what the search measures corrects its expectations.
        self._known = self._learned = kept_calibration() if rates is None else Calibration()
        self._has_learned, self._correction = False, 1.0
        self._compile_time = CompileTime(profile.device)

    @property
    def is_tight(self) -> bool:
        """Checks whether the step may fail to fit, so that memory must be looked at."""
        if self._given_budget is not None:
            return True
        if self.budget is None:
            return False
        batch = self.profile.batch
        # A batch of indices is tiny, whatever a model makes of it.
        num_indices = sum(t.numel() for t in tensors_of(batch) if t.dtype in _INDICES)
        guess = (
            _PARAMETER_COPIES * self.profile.parameter_bytes
            + _BATCH_COPIES * num_bytes(batch)
            + num_indices * self.profile.token_bytes
        )
        return guess > _PLENTY * self.budget

    # ---- memory

    def memory(self, plan: Plan) -> MemoryPrediction | None:
        """Returns the bytes at the peak; None if they are not predicted."""
        prediction = self._captured(plan) if self._is_looked_into(plan) else None
        return None if prediction is None else prediction.memory

    def verdict(self, plan: Plan) -> MemoryVerdict | None:
        """Returns whether the plan fits the budget; None if that is not known."""
        prediction = self._captured(plan) if self._is_looked_into(plan) else None
        if prediction is None or self.budget is None:
            return None
        return verdict(prediction, self.budget)

    def needed(self, plan: Plan) -> int | None:
        """Returns the bytes of a budget under which the plan certainly fits; None if that is not
        known."""
        prediction = self._captured(plan)
        return None if prediction is None else needed_bytes(prediction)

    def has_randomness(self, plan: Plan) -> bool | None:
        """Returns whether the objective draws random numbers; None if that is not known."""
        prediction = self._capture(plan)
        return None if prediction is None else prediction.has_randomness

    # ---- time

    def time(self, plan: Plan) -> TimePrediction | None:
        """Returns the seconds of a step by what was known before the search; None if they are
        not predicted."""
        if plan not in self._times:
            if not self.is_asked and self._rates is None:
                return None
            prediction = self._capture_eager(plan)
            if prediction is None and not self.is_asked:
                return None  # it may be asked later
            try:
                self._times[plan] = None
                if prediction is not None:
                    raw = self._raw(plan, prediction)
                    known = self._known.apply(plan, raw, device=self._name)
                    self._times[plan] = dataclasses.replace(
                        known.scaled(self._correction), startup=self._compiling(raw.startup)
                    )
            except Exception as error:  # noqa: BLE001 - of the device's rates: what cannot be predicted is measured
                self._tell_unpredicted(reason_of(error))
        return self._times[plan]

    def expected(self, plan: Plan) -> float | None:
        """Returns the seconds of a step by all that was measured until now; None if they are not
        predicted."""
        prediction = None if self.time(plan) is None else self._capture_eager(plan)
        if prediction is None:
            return None
        return self._learned.apply(plan, self._raw(plan, prediction), device=self._name).step

    def _raw(self, plan: Plan, prediction: Prediction) -> TimePrediction:
        """Predicts a step from the device's rates alone, without calibration."""
        found = predict_time(
            prediction.operations,
            self._rates_for(prediction, plan),
            plan,
            moved_bytes=2 * prediction.memory.host,
            num_repeats=self.profile.num_repeats,
        )
        facts = self.profile.prefix
        if plan.prefix == "computed" or isinstance(facts, str):
            return found
        return found.scaled(1.0 - facts.share)

    def _rates_for(self, prediction: Prediction, plan: Plan) -> Rates:
        needed = rates_needed(prediction.operations, plan)
        if self._rates is None or (self._is_here and not needed <= self._measured):
            self._measured |= needed
            self._rates = rates_of(self.profile.device, self._measured)
        return self._rates

    def filling(self, plan: Plan) -> float:
        """Returns the predicted seconds that a step of the first epoch takes more than a later one;
        0 if that is not known."""
        whole, later = self.time(plan.pin(prefix="computed")), self.time(plan)
        return 0.0 if whole is None or later is None else max(0.0, whole.step - later.step)

    def correct(self, timed: Mapping[Plan, float]) -> None:
        """Corrects all predictions of this task by the measured seconds of a step of some plans,
        before any is told. Theirs are the measurements, and the last one's error is that of all
        others: what errs in one of a task's plans errs in most."""
        known: dict[Plan, TimePrediction | None] = {}
        factor = 1.0
        for plan, measured in timed.items():
            predicted = self.time(plan)
            if predicted is not None and 0.0 < predicted.step < math.inf:
                factor = measured / predicted.step
                known[plan] = dataclasses.replace(predicted.scaled(factor), origin="timed")
        if known:
            self._correction *= factor
            self._times = known

    def learn(self, plan: Plan, measured: float) -> None:
        """Corrects later predictions by the measured seconds of one step of a plan."""
        if self.time(plan) is None:
            return
        prediction = self._capture_eager(plan)
        if prediction is None:
            return
        try:
            raw = self._raw(plan, prediction)
            self._learned = self._learned.update(plan, raw, measured, device=self._name)
            self._has_learned = True
        except Exception as error:  # noqa: BLE001 - a prediction is no reason to end a search
            self._tell(f"nothing is learned for later predictions: {type(error).__name__}: {error}")

    def keep(self) -> None:
        """Leaves what was learned for the next search on this machine."""
        if self._has_learned:
            keep_calibration(self._learned)

    def startup(self, plan: Plan) -> float:
        """Returns the seconds that compiling a plan takes."""
        predicted = self.time(plan)
        return self._compiling(COMPILE_SECONDS) if predicted is None else predicted.startup

    @property
    def has_compiled(self) -> bool:
        """Checks whether it is known from compilations here how long they take."""
        return self._compile_time.is_measured

    def learn_startup(self, plan: Plan, measured: float) -> None:
        """Corrects later predictions, of other searches too, by the measured seconds of compiling
        a plan."""
        prediction = None if self.time(plan) is None else self._capture_eager(plan)
        alone = COMPILE_SECONDS
        if prediction is not None:
            alone = self._raw(plan, prediction).startup
        self._compile_time.note(alone, measured)

    def _compiling(self, seconds: float) -> float:
        return seconds * self._compile_time.factor if seconds and self._is_here else seconds

    # ---- captures

    def capture(self, plans: Iterable[Plan]) -> None:
        """Captures the eager steps of several plans beside one another, one on each core, so that
        what is asked of them afterwards is known; not where memory is short, since a model may have
        to be built for a capture."""
        missing: dict[CaptureKey, Plan] = {}
        for plan in plans:
            eager = plan.pin(compile=False, activation_budget=1.0)
            if self._key(eager) not in self._captures:
                missing.setdefault(self._key(eager), eager)
        if not missing or not self.is_asked or self._is_short_for(len(missing)):
            return
        found = trace_each(
            self._task, [*missing.values()], target=self._target, batch=self.profile.batch
        )
        for key, traced in zip(missing, found, strict=True):
            self._note(key, traced)

    def _is_short_for(self, num_models: int) -> bool:
        """Checks whether memory may be short for so many models beside one another: on a device
        that is not here, that of this host."""
        if self._is_here:
            return self.is_tight
        free = Device("cpu").free_bytes()
        return free is not None and num_models * self.profile.parameter_bytes > _PLENTY * free

    def _note(self, key: CaptureKey, traced: TracedStep | IsolatedError) -> None:
        if isinstance(traced, IsolatedError):
            self._captures[key] = None
            self._tell_unpredicted(traced.reason)
        else:
            self._captures[key] = self._kept_captures[key] = traced

    def look_into(self, plan: Plan) -> None:
        """Predicts the memory of one compiled plan, which takes several seconds."""
        self._capture(plan)

    def _is_looked_into(self, plan: Plan) -> bool:
        # The partitioner's graphs take several seconds.
        is_eager = not plan.compile or plan.compile_mode == "blocks" or not self._is_here
        is_quick = is_eager or self._key(plan) in self._captures
        return is_quick or self.looks_into_compiled

    def _captured(self, plan: Plan) -> Prediction | None:
        """Returns the figures of a step with what a frozen prefix keeps: in the first epoch it
        computes all the same."""
        prediction, facts = self._capture(plan), self.profile.prefix
        if prediction is None or plan.prefix == "computed" or isinstance(facts, str):
            return prediction
        room = FeatureRoom.of(self.profile.device, self._given_budget)
        kept = room.in_memory(int(facts.row_bytes * len(self._task.data)))
        return dataclasses.replace(prediction, memory=prediction.memory.with_more("data", kept))

    def _capture_eager(self, plan: Plan) -> Prediction | None:
        # Fusion is estimated from the eager step's operations.
        return self._capture(plan.pin(compile=False, activation_budget=1.0))

    def _capture(self, plan: Plan) -> Prediction | None:
        # What compiled blocks hold is no more than their eager step does.
        if not self._is_here or plan.compile_mode == "blocks":
            plan = plan.pin(compile=False)
        key = self._key(plan)
        if key not in self._captures:
            if not self.is_asked:
                return None
            (traced,) = trace_each(
                self._task, [plan], target=self._target, batch=self.profile.batch
            )
            self._note(key, traced)
        traced = self._captures[key]
        return None if traced is None else prediction_of(traced, plan, self._target)

    def _key(self, plan: Plan) -> CaptureKey:
        if plan.precision == "tf32":  # the same operations on the same tensors
            plan = plan.pin(precision="fp32")
        return tuple(getattr(plan, knob) for knob in _CAPTURED)

    def _tell_unpredicted(self, reason: str) -> None:
        self._tell(
            f"not predicted, but measured: {reason}"
            if self._is_here
            else f"not predicted: {reason}"
        )

    def _tell(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.append(notice)
