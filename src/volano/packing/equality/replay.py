"""Trains a task alone, as ``volano.train`` does under the plain plan, and notes what it shows at given steps."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.errors import UsageError
from volano.plan import Plan
from volano.task import Task
from volano.training import Session, settings_of

# Unit roundoff times two of each precision's arithmetic: 24, 11 and 8 bits of significand.
UNIT_OF_PRECISION = {"fp32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7}
_SEED_OF_SHAKING = 0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a task shows at a step.

    Attributes:
        step: optimizer steps made.
        metrics: of the evaluation there; empty without a validation set, NaN once a step was not finite.
        training_loss: mean since the stop before; NaN where a step's loss or gradient was not finite.
    """

    step: int
    metrics: Mapping[str, float]
    training_loss: float


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A task trained alone.

    Attributes:
        stops: what it showed at each of the steps that were asked for.
        seconds: that it took.
        device: on which, as torch writes it.
    """

    stops: tuple[Shown, ...]
    seconds: float
    device: str


def plan_of_replays(device: str | None, precision: str) -> Plan:
    """The plain plan with the fused implementation of the optimizer: that under which packs train their members."""
    return Plan.baseline(Device(device).name).pin(precision=precision, optimizer="fused")


def replay(task: Task, steps: Sequence[int], *, plan: Plan | None = None, shake: float = 0.0) -> Replayed:
    """Trains a task from its first step to the last of ``steps``, and evaluates it at each of them.

    Random state and settings are put back. A step whose loss or gradient is not finite is not made, and none after it:
    alone, the training would have ended there.

    Args:
        task: what.
        steps: optimizer steps, rising, from 1 on.
        plan: None is :func:`plan_of_replays` in fp32 on the accelerator, or the CPU without one.
        shake: each initial weight is multiplied by a number drawn from ``1 - shake`` to ``1 + shake``: with a unit of
            the arithmetic's precision, a training that differs by rounding alone.

    Raises:
        UsageError: the steps do not rise, or lie outside the task's run.
        VolanoError: as its subclasses say.
    """
    if not steps or list(steps) != sorted(set(steps)) or not 1 <= steps[0] <= steps[-1] <= task.num_steps:
        raise UsageError(
            "A task is replayed to rising steps of its run", got=list(steps), remedy=f"It has {task.num_steps} steps"
        )
    plan = plan_of_replays(None, "fp32") if plan is None else plan
    start = time.perf_counter()
    device = Device(plan.device)
    with random_state_kept(device), settings_of(plan, device):
        session = Session(task, plan, on_notice=lambda _: None)
        if shake:
            shake_weights(session.model, shake)
        stops = _train(session, steps)
    return Replayed(stops=stops, seconds=time.perf_counter() - start, device=device.name)


def _train(session: Session, steps: Sequence[int]) -> tuple[Shown, ...]:
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
            losses = torch.stack(unread).double().tolist() if unread else []
            mean = math.nan if is_broken or not losses else math.fsum(losses) / len(losses)
            metrics = {} if session.valid_feed is None else session.evaluate()
            metrics = dict.fromkeys(metrics, math.nan) if is_broken else metrics
            stops.append(Shown(step=session.step, metrics=metrics, training_loss=mean))
            unread = []
    return tuple(stops)


@torch.no_grad()
def shake_weights(model: nn.Module, amount: float) -> None:
    """Multiplies each weight by a number drawn from ``1 - amount`` to ``1 + amount``, the same at each call."""
    generator = torch.Generator().manual_seed(_SEED_OF_SHAKING)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            draws = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 2 - 1
            parameter.copy_((parameter.double().cpu() * (1 + amount * draws)).to(parameter))
