"""Trains tasks of a study again, alone, and compares all figures that they showed in packs.

How far rounding takes two trainings apart is measured, not guessed: each is trained alone a second
time from weights that begin one unit of the precision away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from volano.device import Device
from volano.errors import UsageError
from volano.packing.equality import UNIT_OF_PRECISION, shake_weights
from volano.plan import Plan
from volano.record.study import RungValue
from volano.task import Task
from volano.training import Session, throwaway_session

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


def compare_figures(
    trial: int, task: Task, rungs: Sequence[Shown | RungValue], plan: Plan
) -> list[Compared]:
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


def _band(solo: float, shaken: float) -> float:
    """Returns how far two trainings alone are apart, as a share of the value; infinity if only one
    is a finite number."""
    if math.isfinite(solo) and math.isfinite(shaken):
        return abs(solo - shaken) / _size(solo)
    return 0.0 if math.isfinite(solo) == math.isfinite(shaken) else math.inf


def _size(value: float) -> float:
    return max(_SMALLEST, abs(value)) if math.isfinite(value) else 1.0


def _figures(shown: Shown | RungValue) -> dict[str, float]:
    return {**shown.metrics, TRAINING_LOSS: shown.training_loss}
