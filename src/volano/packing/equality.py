"""Checks whether members of a pack come to the same results as alone, but for rounding.

How far rounding takes two trainings apart is measured, not guessed: a member is trained alone a
second time from weights that begin one unit of the precision away. An engine is compared with the
first steps of a member alone, tensor by tensor (:class:`MemberAlone`, for the choice of an engine).
A study's trials are compared with whole trainings alone, figure by figure (:func:`compare_figures`,
for ``volano.verify``)."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from volano.data import Feed
from volano.device import Device
from volano.errors import UsageError
from volano.packing.engines.engine import Engine
from volano.packing.engines.sequential import Sequential
from volano.packing.feed import PackBatch
from volano.packing.member import Member, MemberState
from volano.packing.refusal import NotPackable
from volano.plan import Plan
from volano.task import Task
from volano.training import Session, evaluate, throwaway_session

# Twice the unit roundoff of each precision's arithmetic: 24, 11 and 8 bits of significand.
UNIT_OF_PRECISION = {"fp32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7}
_SEED_OF_SHAKING = 0

# ---- the first steps of an engine
WARM_STEPS = 2  # they make programs and warm caches
# Relative difference of losses, of movements and of evaluations that rounding explains in the first
# steps; bf16 keeps three digits. Movements observed: 6e-7 in fp32 and 2e-2 in bf16, but for tensors
# that move by rounding.
_MOST_DIFFERENCE = {"fp32": 2e-3, "tf32": 2e-2, "bf16": 5e-2}
# Some tensors move by rounding more than by anything else: the bias of keys, a bias before a
# BatchNorm, Muon's result for small singular values in bf16. One sample of rounding shows how much;
# an engine's rounding may be so many times that. Observed for tensors that the difference above
# does not explain: 2.4.
_MOST_DRAWS = 5.0
# Another algorithm rounds more than another sample does: gradients of a compiled convolution,
# summed over 100,000 places, differed by 1.5e-5 of the largest ones although the true gradient is
# zero. A share of the largest movement of a tensor of its kind, per element.
_MOST_OF_LARGEST = {"fp32": 1e-4, "tf32": 1e-3, "bf16": 1e-2}

# ---- figures of whole trainings
TRAINING_LOSS = "training loss"
# A second training alone deviates by rounding; so many times its deviation is still rounding. The
# second training rounds differently once, at its beginning; a pack does at every operation.
_TIMES_THE_BAND = 10.0
# Sums over a batch or a set in another order, in fp32 whatever the precision: some hundred
# additions, each with half a unit of error; each summand may be rounded differently as well.
_UNITS_OF_A_SUM, _UNITS_OF_A_TERM = 256, 2
# The number of examples whose class may change by rounding, because their two best classes are
# equally good.
_EXAMPLES_THAT_FLIP = 2
# Smaller values are taken to be rounded as if they were so large: losses near zero are differences
# of larger numbers.
_SMALLEST = 0.1


class MemberAlone:
    """A few steps of a member alone, with which engines are compared.

    Args:
        member: the member as it stands; it is not changed.
        batches: the batches of the steps, for this member alone.
        plan, device: plan and device of the training.

    Attributes:
        seconds: seconds of the shortest step but the first.
    """

    def __init__(
        self, member: Member, batches: Sequence[PackBatch], plan: Plan, device: Device
    ) -> None:
        self._member, self._batches, self._plan, self._device = member, batches, plan, device
        self._limit = _MOST_DIFFERENCE[plan.precision]
        self._solo = MemberState(member.with_private_code(), plan, device)
        rows, self.seconds = timed_steps(Sequential([self._solo], plan, device), device, batches)
        self._losses = [row[0].item() for row in rows]

    def check_losses(self, losses: Sequence[float]) -> None:
        """Compares another engine's losses, of as many steps or fewer, with those alone.

        Raises:
            NotPackable: the losses differ.
        """
        for step, (got, value) in enumerate(zip(losses, self._losses, strict=False)):
            if not self._is_close(got, value):
                raise NotPackable(
                    f"the loss of member {self._solo.number} at step {step} is {got:.6g} and "
                    f"alone {value:.6g}"
                )

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Compares the member's state, after all the steps under another engine, with the state
        alone: each tensor by its distance relative to its movement, whatever the learning rate.
        Momenta and averages of gradients are among the tensors, so that a wrong gradient shows even
        if the weights have hardly moved.

        Raises:
            NotPackable: the state differs.
        """
        if any(math.isnan(loss) for loss in self._losses):
            return  # alone it has ended
        got, (end, ways, roundings) = _tensors(state), self._measured
        if got.keys() != end.keys():
            name = min(got.keys() ^ end.keys())
            raise NotPackable(
                f"member {self._solo.number} has {name} {'not ' * (name not in got)}as alone"
            )
        for name, way in ways.items():
            distance = _norm(_difference(got[name], end[name]))
            # Written values are rounded at each step.
            is_rounded = end[name].is_floating_point() or end[name].is_complex()
            written = (
                len(self._losses) * torch.finfo(end[name].dtype).eps * _norm(end[name])
                if is_rounded
                else 0.0
            )
            allowed = self._limit * way + roundings[name] + written
            if math.isfinite(allowed) and not distance <= allowed:
                raise NotPackable(
                    f"{name} of member {self._solo.number} is {distance:.2g} from where it is "
                    "alone, "
                    f"on a way of {way:.2g} in {len(self._losses)} steps"
                )

    def check_evaluation(self, metrics: Mapping[str, float], data: Any, feed: Feed) -> None:
        """Compares an evaluation by an engine, after all the steps, with that of the member alone.

        Raises:
            NotPackable: the evaluation differs.
        """
        model, precision = self._solo.kept_model, self._plan.precision
        for name, value in evaluate(
            self._solo.task, model, data, feed, self._device, precision=precision
        ).items():
            got = metrics.get(name, math.inf)
            if not self._is_close(got, value):
                raise NotPackable(
                    f"{name} of member {self._solo.number} is {got:.6g} and alone {value:.6g}"
                )

    @property
    def num_steps(self) -> int:
        """The number of steps that were made."""
        return len(self._losses)

    @functools.cached_property
    def _measured(self) -> tuple[dict[str, Tensor], dict[str, float], dict[str, float]]:
        """Returns the tensors after the steps, how much each has moved, and how much rounding may
        have moved it."""
        other = MemberState(self._member.with_private_code(), self._plan, self._device)
        start, end = _tensors(other.state()), _tensors(self._solo.state())
        for model in (other.model, other.kept_model) if other.ema else (other.model,):
            shake_weights(model, UNIT_OF_PRECISION[self._plan.precision])
        shaken = _tensors(other.state())
        timed_steps(Sequential([other], self._plan, self._device), self._device, self._batches)
        moved, otherwise = _moved(start, end), _moved(shaken, _tensors(other.state()))
        ways = {name: _norm(way) for name, way in moved.items()}
        least = self._least_differences(moved, ways)
        draws = {name: _norm(_difference(otherwise[name], way)) for name, way in moved.items()}
        return end, ways, {name: _MOST_DRAWS * draw + least[name] for name, draw in draws.items()}

    def _least_differences(
        self, moved: Mapping[str, Tensor], ways: Mapping[str, float]
    ) -> dict[str, float]:
        parameters = {name for name, _ in self._solo.model.named_parameters()}
        largest: dict[str, float] = {}
        for name, way in moved.items():
            kind, size = _kind(name, parameters), ways[name] / math.sqrt(max(1, way.numel()))
            largest[kind] = max(largest.get(kind, 0.0), size if math.isfinite(size) else 0.0)
        share = _MOST_OF_LARGEST[self._plan.precision]
        return {
            n: share * largest[_kind(n, parameters)] * math.sqrt(way.numel())
            for n, way in moved.items()
        }

    def _is_close(self, got: float, value: float) -> bool:
        if math.isnan(got) and math.isnan(value):
            return True
        return abs(got - value) <= self._limit * max(abs(value), 1e-3)


def timed_steps(
    engine: Engine, device: Device, batches: Sequence[PackBatch], *, hopeless: float = math.inf
) -> tuple[list[Tensor], float]:
    """Returns the losses of steps on copies of ``batches``, and the seconds of the shortest step
    but the first.

    An engine that is slower than ``hopeless`` once it is warm makes no further steps.
    """
    rows: list[Tensor] = []
    shortest = math.inf
    for given in batches:
        batch = given.copy()  # the other engines are given the same batch
        device.synchronize()
        start = time.perf_counter()
        rows.append(engine.step(batch))
        device.synchronize()
        if len(rows) > 1:
            shortest = min(shortest, time.perf_counter() - start)
        if len(rows) > WARM_STEPS and shortest > hopeless:
            break
    return rows, shortest


def check_steps(
    engine: Engine, rows: Sequence[Tensor], references: Mapping[int, MemberAlone]
) -> None:
    """Compares an engine's first steps with members alone, by slot.

    Args:
        engine: the engine after the steps.
        rows: its losses, [K] for each step. If there are fewer steps than alone, its state is not
            compared.

    Raises:
        NotPackable: the results differ.
    """
    for slot, reference in references.items():
        reference.check_losses([row[slot].item() for row in rows])
    if all(len(rows) == reference.num_steps for reference in references.values()):
        for reference, state in zip(
            references.values(), engine.states(list(references)), strict=True
        ):
            reference.check_state(state)


def why_evaluated_alone(
    engine: Engine, references: Mapping[int, MemberAlone], data: Any, feed: Feed
) -> str | None:
    """Returns why an engine that has made the steps of ``references`` is not to evaluate members,
    or None."""
    try:
        rows = engine.evaluate_together(data, feed)
        for slot, reference in references.items():
            reference.check_evaluation(rows[slot], data, feed)
    except NotPackable as reason:  # the training keeps its engine
        return str(reason)
    return None


class Rung(Protocol):
    """The figures that a training showed at a step: see :class:`Shown`."""

    @property
    def step(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def training_loss(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The figures that a task shows at a step.

    Attributes:
        step: optimizer steps made.
        metrics: metrics of the evaluation there; empty without a validation set, NaN once a step
            was not finite.
        training_loss: mean training loss since the stop before; NaN if a step's loss or gradient
            was not finite.
    """

    step: int
    metrics: Mapping[str, float]
    training_loss: float


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A figure that a trial showed in a pack and alone.

    Attributes:
        trial: the trial's number.
        step: optimizer steps made.
        figure: ``"loss"`` or another metric of the evaluation, or ``"training loss"``.
        packed, solo: its values.
        tolerance: how far rounding may take the two apart.
    """

    trial: int
    step: int
    figure: str
    packed: float
    solo: float
    tolerance: float

    @property
    def difference(self) -> float:
        """The difference ``packed - solo``; 0 if neither is a number."""
        return 0.0 if math.isnan(self.packed) and math.isnan(self.solo) else self.packed - self.solo

    @property
    def verdict(self) -> str:
        """The verdict: ``"equal"``, ``"rounding"`` or ``"differs"``."""
        if self.packed == self.solo or (math.isnan(self.packed) and math.isnan(self.solo)):
            return "equal"
        explained = math.isinf(self.tolerance) or abs(self.difference) <= self.tolerance
        return "rounding" if explained else "differs"


def compare_figures(trial: int, task: Task, rungs: Sequence[Rung], plan: Plan) -> list[Compared]:
    """Trains a task alone twice, and compares all figures that a pack showed of it. The second
    training has the other implementation of the optimizer, and weights that begin one unit of the
    precision away.

    Args:
        trial: the trial's number.
        task: the trial's task.
        rungs: the figures that the trial showed in packs.
        plan: :func:`plan_of_replays`.

    Raises:
        UsageError: the task shows other figures than the pack did.
    """
    # In a run of a few steps several rungs fall on one: nothing was trained to the later ones.
    befores = (None, *rungs)
    apart = [
        rung
        for before, rung in zip(befores, rungs, strict=False)
        if before is None or rung.step > before.step
    ]
    steps, unit = [rung.step for rung in apart], UNIT_OF_PRECISION[plan.precision]
    runs = (
        replay(task, steps, plan=plan),
        replay(task, steps, plan=plan.pin(optimizer="as_given"), shake=unit),
    )
    floor = _UNITS_OF_A_SUM * UNIT_OF_PRECISION["fp32"] + _UNITS_OF_A_TERM * unit
    widest: dict[str, float] = {}
    rows: list[Compared] = []
    for rung, *stops in zip(apart, *runs, strict=True):
        packed, solo, shaken = (_figures(shown) for shown in (rung, *stops))
        if packed.keys() != solo.keys():
            raise UsageError(
                "build must make the same tasks as for the study",
                got=f"figures {sorted(solo)}, but {sorted(packed)} in the study",
            )
        for name, value in packed.items():
            # Two trainings that have diverged so far may differ as much later, even if they cross
            # for a moment.
            widest[name] = max(widest.get(name, 0.0), _band(solo[name], shaken[name]))
            share = max(floor, _TIMES_THE_BAND * widest[name])
            is_loss = name in ("loss", TRAINING_LOSS)
            flips = 0.0 if is_loss or task.valid is None else _EXAMPLES_THAT_FLIP / len(task.valid)
            tolerance = max(_size(solo[name]) * share, flips)
            rows.append(
                Compared(
                    trial=trial, step=rung.step, figure=name, packed=value, solo=solo[name],
                    tolerance=tolerance
                )
            )  # fmt: skip
    return rows


def plan_of_replays(device: str | None, precision: str) -> Plan:
    """Returns the plain plan with the fused implementation of the optimizer, under which packs
    train their members."""
    return Plan.baseline(Device(device).name).pin(precision=precision, optimizer="fused")


def replay(
    task: Task, steps: Sequence[int], *, plan: Plan | None = None, shake: float = 0.0
) -> tuple[Shown, ...]:
    """Trains a task alone, as ``volano.train`` does, from its first step to the last of ``steps``,
    and returns the figures at each of them.

    Random state and settings are put back. A step whose loss or gradient is not finite is not made,
    nor any later one: alone, the training would have ended there.

    Args:
        task: the task to train.
        steps: numbers of optimizer steps, rising, from 1 on.
        plan: None is :func:`plan_of_replays` in fp32 on the accelerator, or on the CPU if there is
            none.
        shake: each initial weight is multiplied by a number drawn from ``1 - shake`` to ``1 +
            shake``: with a unit of the arithmetic's precision, a training that differs by rounding
            alone.

    Raises:
        UsageError: the steps do not rise, or lie outside the task's run.
        VolanoError: the task cannot be trained; see the subclasses.
    """
    if (
        not steps
        or list(steps) != sorted(set(steps))
        or not 1 <= steps[0] <= steps[-1] <= task.num_steps
    ):
        raise UsageError(
            "`steps` must be rising steps of the task's run",
            got=list(steps),
            remedy=f"It has {task.num_steps} steps",
        )
    plan = plan_of_replays(None, "fp32") if plan is None else plan
    with throwaway_session(task, plan) as session:
        if shake:
            shake_weights(session.model, shake)
        return _shown_at(session, steps)


def _shown_at(session: Session, steps: Sequence[int]) -> tuple[Shown, ...]:
    stops: list[Shown] = []
    unread: list[Tensor] = []
    is_broken = False
    for batch in session.feed.batches(session.order.keys(0, steps[-1])):
        if not is_broken:
            result = session.step_once(batch, session.step)
            is_broken = result.is_bad
            unread.append(torch.full_like(result.loss, math.nan) if is_broken else result.loss)
        session.step += 1
        if session.step == steps[len(stops)]:
            losses = torch.stack(unread).cpu().double().tolist() if unread else []
            mean = math.nan if is_broken or not losses else math.fsum(losses) / len(losses)
            metrics = {} if session.valid_feed is None else session.evaluate()
            metrics = dict.fromkeys(metrics, math.nan) if is_broken else metrics
            stops.append(Shown(step=session.step, metrics=metrics, training_loss=mean))
            unread = []
    return tuple(stops)


@torch.no_grad()
def shake_weights(model: nn.Module, amount: float) -> None:
    """Multiplies each weight by a number drawn from ``1 - amount`` to ``1 + amount``, the same at
    each call."""
    generator = torch.Generator().manual_seed(_SEED_OF_SHAKING)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            draws = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 2 - 1
            parameter.copy_((parameter.cpu().double() * (1 + amount * draws)).to(parameter))


def _band(solo: float, shaken: float) -> float:
    """Returns how far two trainings alone are apart, as a share of the value; infinity if only one
    is a finite number."""
    if math.isfinite(solo) and math.isfinite(shaken):
        return abs(solo - shaken) / _size(solo)
    return 0.0 if math.isfinite(solo) == math.isfinite(shaken) else math.inf


def _size(value: float) -> float:
    return max(_SMALLEST, abs(value)) if math.isfinite(value) else 1.0


def _figures(shown: Rung) -> dict[str, float]:
    return {**shown.metrics, TRAINING_LOSS: shown.training_loss}


def _kind(name: str, parameters: Collection[str]) -> str:
    """Returns the kind of a tensor of a state; tensors of one kind are about as large: parameters,
    buffers of one name, an optimizer's tensors of one name."""
    first, _, rest = name.partition(".")
    return first if rest in parameters else f"{first} {rest.rpartition('.')[2]}"


def _tensors(tree: Any, name: str = "") -> dict[str, Tensor]:
    """Returns the tensors of a member's state, by their path."""
    if isinstance(tree, Tensor):
        return {name: tree}
    if not isinstance(tree, Mapping):
        return {}
    return {
        path: t
        for key, part in tree.items()
        for path, t in _tensors(part, f"{name}.{key}".lstrip(".")).items()
    }


def _moved(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns how much each tensor has moved; tensors that an optimizer makes at its first step
    start from nothing."""
    return {
        name: _difference(tensor, start[name]) if name in start else _wide(tensor) for name,
        tensor in end.items()
    }  # fmt: skip


def _difference(one: Tensor, other: Tensor) -> Tensor:
    one, other = _wide(one), _wide(other)
    is_same = (one == other) | (one.isnan() & other.isnan())  # infinities, of a mask for example
    return torch.where(is_same, 0.0, one - other)


def _norm(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(_wide(tensor)).item()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
