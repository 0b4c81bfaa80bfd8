"""Checks whether a plan computes the same as plain eager PyTorch, within what rounding explains. A
plan that does not is rejected.

The measure is eager PyTorch's own error at the same precision. With ``e`` the relative L2 error of
a gradient against float64, a plan passes if ``e(plan) <= k * e(eager) + floor``. The form and the
multipliers are those of torch's own ``torch._dynamo.utils.same`` (2 for fp32, 3 for narrower types)
and of FlashAttention's tests (2 to 4); single elements are not compared, because they differ by any
factor between honest plans (pytorch#168126).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from volano.errors import reason_of
from volano.plan import Plan
from volano.planner.parity.directional_derivative import slope_ratio
from volano.planner.parity.likeness import (
    change,
    compare,
    different,
    distance,
    is_finite,
    names_of_none,
    relative,
)
from volano.planner.parity.probe_batch import Gradient
from volano.planner.parity.reference import Reference, StepOutcome
from volano.task import Task

_MULTIPLIER = {"fp32": 2.0, "tf32": 3.0, "bf16": 3.0, "fp16": 3.0}
# Errors below these floors say nothing: some hundred roundings of the type in a row (fp32: 6e-8,
# bf16: 4e-3, fp16: 5e-4).
_FLOOR = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 1e-3, "fp16": 1e-3}
# A limit, because a multiple of a large error of eager's would let anything pass. Measured in bf16
# on a ResNet with BatchNorm: eager is off by 0.30, channels_last by 0.31.
_LARGEST_EXCESS = 0.1
# A type's rounding cannot explain more than the error of fp32 times the ratio of the unit
# roundoffs. Measured in bf16, as multiples of that: MLP 2.2, image network 1.8, LSTM 0.2, language
# model 0.1, video U-Net 0.02, ResNet 0.01.
_ROUNDOFF = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}
_AMPLIFIED, _AMPLIFIED_FLOOR = 8.0, 0.02
# In channels_last a convolution with BatchNorm behind it may be off by 1e-3 in fp32, ten times as
# much as eager's. If the same gradient in float64 is off by less than the first of these, that is
# rounding, which may take so much of it as the second says.
_SAME_IN_FLOAT64, _LARGEST_ROUNDING = 1e-9, 1e-2
# The largest error of all: beyond it a step goes elsewhere, whatever causes the error. Eager ResNet
# in bf16, as above: 0.30.
_LARGEST_ERROR = 0.5
# If there is no float64, eager fp32 stands in for it. Its own error, 5e-5 in a network with
# BatchNorm, is then unknown.
_FLOOR_WITHOUT_FLOAT64 = 1e-4
# A gradient that is turned by more than this is another one, whatever eager PyTorch does at that
# precision.
_LEAST_COSINE = {"fp32": 0.9999, "tf32": 0.999, "bf16": 0.999, "fp16": 0.999}
# The same limit for a single parameter, if it is large enough to tell.
_LEAST_PARAMETER_COSINE = 0.99
_LOSS = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 5e-3, "fp16": 5e-3}
_LARGEST_LOSS = 2e-2
# The update is compared after the first step and after the third: Adam's first is sign-like and
# hides wrong scales.
_LEAST_UPDATE_COSINE = 0.99
# In fp32 after the first step, over the parameters whose gradient fp32 can tell from zero: for
# others (a bias before BatchNorm) Adam's step is the sign of a rounding. Their error is near one,
# that of all others some hundred roundings. Later steps diverge by themselves: the video U-Net in
# channels_last has 0.9989 after the third.
_LEAST_UPDATE_COSINE_FP32, _TOLD_FROM_ZERO = 0.9999, 1e-2
# Limits of the directional derivative: see directional_derivative.py.
_SLOPE = {"fp32": 0.02, "tf32": 0.1, "bf16": 0.1, "fp16": 0.1}
# The arithmetic knobs that change no bit.
_EXACT = {"recompute": "none", "offload": "none"}


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The guard's verdict on a plan.

    Attributes:
        passed: whether it computes the same within what rounding explains.
        reason: why it does not, or what was compared and what was left out.
        figures: the measured figures by name; ``seconds`` is the cost.
    """

    passed: bool
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


class _StruckError(Exception):
    """The error that ends the check of a plan that computes something else."""


def check_parity(
    task: Task, plan: Plan, *, reference: Reference | None = None, seconds: float = 60.0
) -> Parity:
    """Compares a plan with the reference on one batch of the task, through the engine that would
    run it.

    Args:
        task: the task that is trained.
        plan: the candidate.
        reference: the reference of the same task and device; made here if there is none.
        seconds: about how long the passes may take, for a reference made here.

    Random state, settings and every object of the task's maker are as before. A plan that fails to
    run does not pass.
    """
    started = time.perf_counter()
    figures: dict[str, float] = {}
    said: list[str] = []
    try:
        reference = reference or Reference(task, plan.device, seconds=seconds)
        _Check(reference, plan, figures, said).run()
        summary = (
            f"the gradient is off by {figures['error']:.1e} of its norm, eager's by "
            f"{figures['eager_error']:.1e}"
        )
        passed, reason = True, "; ".join([summary, *said])
    except _StruckError as error:
        passed, reason = False, str(error)
    except Exception as error:  # noqa: BLE001 - the user's code or a compiler may raise anything
        passed, reason = False, f"a step fails with {reason_of(error)}"
    figures["seconds"] = time.perf_counter() - started
    return Parity(passed=passed, reason=reason, figures=figures)


class _Check:
    """The check of one candidate, tier by tier. It collects figures and remarks."""

    def __init__(
        self, reference: Reference, plan: Plan, figures: dict[str, float], said: list[str]
    ) -> None:
        self._reference, self._given = reference, plan
        self._plan = plan = reference.probe_batch.fitted(plan)
        self._figures, self._said = figures, said
        self._precision = plan.precision
        self._multiplier = _MULTIPLIER[self._precision]
        self._is_eager = False
        # Compiled code draws other numbers: it is compared with dropout off, or, if the objective
        # itself draws, with torch's eager generators in the compiled code. A graph holds no draws
        # of the host's, which eager steps are given here.
        self._dropout = (
            not (plan.compile or plan.graph) or not reference.draws(True) or reference.draws(False)
        )

    def run(self) -> None:
        """Raises _StruckError at the first thing that is wrong."""
        plan, reference = self._plan, self._reference
        probe_batch = reference.probe_batch
        self._figures["examples"] = probe_batch.size
        if probe_batch.size < probe_batch.full_size:
            self._said.append(f"{probe_batch.size} of the batch's {probe_batch.full_size} examples")
        if plan.micro_batch is not None and plan.micro_batch < probe_batch.size:
            self._check_divisible()
        exact = reference.exact(plan.micro_batch, dropout=self._dropout)
        if reference.why_not_float64 is not None:
            self._said.append(
                f"against eager fp32, since float64 fails with {reference.why_not_float64}"
            )
        eager = reference.eager(self._precision, dropout=self._dropout)
        found = reference.outcome(plan, dropout=self._dropout)
        if found.scale != 1:
            self._figures["scale"] = found.scale
        self._check_structure(found, exact)
        self._check_twin(found)
        # However far rounding takes a step (BatchNorm over constant features multiplies it by
        # 300 a layer), bits that are those of plain eager PyTorch are the experiment's own.
        self._is_eager = self._precision == "fp32" and not different(found.gradient, eager.gradient)
        self._check_gradient(found, eager, exact)
        self._check_loss(found, eager, exact)
        self._check_buffers(found, eager, exact)
        self._check_updates(found, eager)
        self._check_slope()

    def _check_divisible(self) -> None:
        divisible = self._reference.divisible()
        self._figures["split_difference"] = divisible.difference
        if not divisible.yes:
            raise _StruckError(f"micro_batch={self._given.micro_batch}: {divisible.reason}")

    def _check_structure(self, found: StepOutcome, exact: Gradient) -> None:
        """Checks tier 0: what must hold whatever the rounding."""
        gradient = found.gradient
        if not math.isfinite(gradient.loss):
            raise _StruckError(
                f"the loss is {gradient.loss} in {self._precision}, and {exact.loss:.4g} exactly"
            )
        bad = [
            name
            for name, value in gradient.gradients.items()
            if value is not None and not is_finite(value)
        ]
        self._figures["gradients_not_finite"] = len(bad)
        if bad:
            raise _StruckError(
                f"{len(bad)} of {len(gradient.gradients)} gradients are not finite in "
                f"{self._precision}, "
                f"first that of {bad[0]}"
            )
        ours, theirs = names_of_none(gradient.gradients), names_of_none(exact.gradients)
        if ours != theirs:
            raise _StruckError(
                f"{sorted(ours ^ theirs)[0]} has a gradient under one of plan and eager only"
            )
        if found.examples is not None and found.examples != self._reference.probe_batch.size:
            raise _StruckError(
                f"{found.examples} examples went into a step on {self._reference.probe_batch.size}"
            )
        weight = gradient.weight
        if math.isfinite(weight) and not math.isclose(weight, exact.weight, rel_tol=1e-5):
            raise _StruckError(
                f"the weights of the micro-batches add up to {weight:.6g} instead of "
                f"{exact.weight:.6g}"
            )

    def _check_twin(self, found: StepOutcome) -> None:
        """Checks that knobs of class exact change no bit: the plan against the same plan without
        them."""
        twin = self._plan.pin(**_EXACT, allocator="system")
        changed = self._plan.changes(twin).keys() & _EXACT.keys()
        if not changed or self._plan.compile:
            return
        expected = self._reference.kept_outcome(twin, dropout=self._dropout)
        names = different(found.gradient, expected.gradient)
        # Whose kernels may add in any order (atomics).
        if names and not self._reference.device.is_cpu:
            again = self._reference.outcome(twin, dropout=self._dropout)
            if different(again.gradient, expected.gradient):
                self._said.append(
                    "not compared bitwise: this device gives eager PyTorch other bits each time"
                )
                return
        self._figures["bitwise_different"] = len(names)
        if names:
            raise _StruckError(
                f"{', '.join(sorted(changed))} must change no bit, and changes {names[0]} by "
                f"{change(found.gradient, expected.gradient, names[0]):.1e} of its norm"
            )

    def _check_gradient(self, found: StepOutcome, eager: StepOutcome, exact: Gradient) -> None:
        ours = compare(found.gradient.gradients, exact.gradients)
        theirs = compare(eager.gradient.gradients, self._exact_of_eager().gradients)
        floor = _FLOOR[self._precision]
        if self._reference.why_not_float64 is not None:
            floor = max(floor, _FLOOR_WITHOUT_FLOAT64)
        self._figures |= {
            "error": ours.error, "eager_error": theirs.error, "cosine": ours.cosine,
            "eager_cosine": theirs.cosine, "parameter_cosine": ours.least,
            "eager_parameter_cosine": theirs.least,
        }  # fmt: skip
        excess = min((self._multiplier - 1) * theirs.error, _LARGEST_EXCESS)
        is_near = ours.error <= theirs.error + excess + floor
        if not is_near and not self._is_rounding(ours.error, exact):
            raise _StruckError(
                f"the gradient is off by {ours.error:.1e} of its norm, eager {self._precision} by "
                f"{theirs.error:.1e}"
            )
        if not self._is_eager:
            self._check_precision(ours.error)
        if not 1 - ours.cosine <= self._turned(theirs.cosine, _LEAST_COSINE[self._precision]):
            raise _StruckError(
                f"the gradient's cosine is {ours.cosine:.6f}, that of eager {theirs.cosine:.6f}"
            )
        for name, cosine in ours.by_parameter.items():
            allowed = self._turned(theirs.by_parameter.get(name, 1.0), _LEAST_PARAMETER_COSINE)
            if not 1 - cosine <= allowed:
                raise _StruckError(
                    f"the gradient of {name} has cosine {cosine:.4f}, that of eager "
                    f"{theirs.by_parameter[name]:.4f}"
                )

    def _is_rounding(self, error: float, exact: Gradient) -> bool:
        """Returns whether a larger error than eager's is rounding, because the memory format
        changes nothing in float64. (A compiled program would be another one there.)"""
        plan, reference = self._plan, self._reference
        if (
            plan.memory_format != "channels_last" or plan.precision != "fp32" or plan.compile
            or plan.graph or reference.why_not_float64 is not None or error > _LARGEST_ROUNDING
        ):  # fmt: skip
            return False
        same = reference.exact(plan.micro_batch, dropout=self._dropout, is_channels_last=True)
        difference = compare(same.gradients, exact.gradients).error
        self._figures["float64_difference"] = difference
        if difference > _SAME_IN_FLOAT64:
            return False
        self._said.append("the same in float64: what is more than eager's is rounding")
        return True

    def _check_precision(self, error: float) -> None:
        """Checks that the type explains the error, because eager PyTorch at the same precision may
        be wrong too."""
        limit = _LARGEST_ERROR
        if self._reference.why_not_float64 is None:
            plain = self._reference.eager("fp32", dropout=self._dropout).gradient.gradients
            rounding = compare(plain, self._exact_of_eager().gradients).error
            ratio = _ROUNDOFF[self._precision] / _ROUNDOFF["fp32"]
            limit = min(limit, max(_AMPLIFIED_FLOOR, _AMPLIFIED * ratio * rounding))
        self._figures["largest_error"] = limit
        if not error <= limit:
            raise _StruckError(
                f"the gradient is off by {error:.1e} of its norm, of which the rounding of "
                f"{self._precision} explains "
                f"{limit:.1e} at most"
            )

    def _exact_of_eager(self) -> Gradient:
        return self._reference.exact(dropout=self._dropout)

    def _turned(self, eager_cosine: float, least: float) -> float:
        """Returns how far below one a cosine may lie: it falls with the square of the error."""
        return max(1 - least, self._multiplier**2 * (1 - eager_cosine))

    def _check_loss(self, found: StepOutcome, eager: StepOutcome, exact: Gradient) -> None:
        ours = relative(found.gradient.loss, exact.loss)
        theirs = relative(eager.gradient.loss, self._exact_of_eager().loss)
        self._figures |= {"loss_difference": ours, "eager_loss_difference": theirs}
        most = math.inf if self._is_eager else _LARGEST_LOSS
        if not ours <= min(max(_LOSS[self._precision], self._multiplier * theirs), most):
            raise _StruckError(
                f"the loss differs by {ours:.1e}, that of eager {self._precision} by {theirs:.1e}"
            )

    def _check_buffers(self, found: StepOutcome, eager: StepOutcome, exact: Gradient) -> None:
        before = self._exact_of_eager().buffers
        for name, value in exact.buffers.items():
            mine = found.gradient.buffers[name]
            if not value.is_floating_point():
                if not torch.equal(mine, value):
                    raise _StruckError(f"the buffer {name} is another one after the step")
                continue
            ours = distance(mine, value)
            theirs = distance(eager.gradient.buffers[name], before[name])
            if not ours <= self._multiplier * theirs + _FLOOR[self._precision]:
                raise _StruckError(
                    f"the buffer {name} differs by {ours:.1e} after the step, under eager by "
                    f"{theirs:.1e}"
                )

    def _check_updates(self, found: StepOutcome, eager: StepOutcome) -> None:
        if self._plan.micro_batch is not None and self._reference.draws(self._dropout):
            self._said.append("updates not compared: each micro-batch draws its own random numbers")
            return
        plain = self._reference.eager("fp32", dropout=self._dropout)
        for when, ours, theirs, expected in zip(
            ("first", "third"), found.updates, eager.updates, plain.updates, strict=True
        ):
            mine, its = compare(ours, expected), compare(theirs, expected)
            self._figures |= {
                f"{when}_update_cosine": mine.cosine,
                f"eager_{when}_update_cosine": its.cosine,
            }
            if not 1 - mine.cosine <= self._turned(its.cosine, _LEAST_UPDATE_COSINE):
                raise _StruckError(
                    f"the weights' change after the {when} step has cosine {mine.cosine:.4f}, "
                    "that of eager "
                    f"{self._precision} {its.cosine:.4f}"
                )
            self._check_sure_updates(when, ours, expected)
            self._check_frozen(when, ours, theirs, expected)

    def _check_sure_updates(
        self, when: str, ours: dict[str, Tensor], expected: dict[str, Tensor]
    ) -> None:
        if (
            when != "first"
            or self._precision != "fp32"
            or self._reference.why_not_float64 is not None
        ):
            return
        exact = self._exact_of_eager().gradients
        plain = self._reference.eager("fp32", dropout=self._dropout).gradient.gradients
        sure = {
            name: value
            for name, value in expected.items()
            if (gradient := plain[name]) is not None
            and (true := exact[name]) is not None
            and distance(gradient, true) <= _TOLD_FROM_ZERO
        }
        cosine = compare(ours, sure).cosine
        self._figures[f"sure_{when}_update_cosine"] = cosine
        if not cosine >= _LEAST_UPDATE_COSINE_FP32:
            raise _StruckError(
                f"the weights' change after the {when} step has cosine {cosine:.5f} with eager's"
            )

    def _check_frozen(
        self,
        when: str,
        ours: dict[str, Tensor],
        theirs: dict[str, Tensor],
        expected: dict[str, Tensor],
    ) -> None:
        """Checks parameters without gradient, which the passes themselves may move: as far as under
        eager."""
        exact = self._exact_of_eager().gradients
        frozen = {name: value for name, value in expected.items() if exact[name] is None}
        mine, its = compare(ours, frozen).error, compare(theirs, frozen).error
        # Two changes of the same length with cosine c have the relative distance sqrt(2 (1 - c)).
        if not mine <= min(
            self._multiplier * its + math.sqrt(2 * (1 - _LEAST_UPDATE_COSINE)), _LARGEST_ERROR
        ):
            raise _StruckError(
                f"parameters without gradient have moved otherwise after the {when} step: off by "
                f"{mine:.1e}, eager "
                f"{self._precision} by {its:.1e}"
            )

    def _check_slope(self) -> None:
        """Checks tier 1b: if code is compiled or recomputed and draws, loss and gradient must come
        from the same draws."""
        plan, reference = self._plan, self._reference
        if not reference.draws(True) or not (plan.compile or plan.recompute != "none"):
            return
        with reference.kept(plan):
            ratio = slope_ratio(reference.probe_batch, plan)
        self._figures["slope_ratio"] = ratio
        if not abs(ratio - 1) <= _SLOPE[self._precision]:
            raise _StruckError(
                f"with its own random numbers the loss changes by {ratio:.3f} of what the "
                "gradient says: forward and "
                "backward pass drew different ones"
            )
