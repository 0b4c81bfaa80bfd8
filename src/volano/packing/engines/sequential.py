"""The reference engine: one member after the other. It takes any model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from volano.data import Feed
from volano.device import Device
from volano.packing.engines.engine import MEMORY_OF_EACH, Engine
from volano.packing.member import MemberState
from volano.packing.pack_feed import PackBatch
from volano.plan import Plan
from volano.training import evaluate
from volano.training.state import TrainState
from volano.training.step import Step


class Sequential(Engine):
    """An engine whose members take the very steps of their trainings alone, eagerly; they share
    only the feed."""

    name: ClassVar[str] = "loop"
    why_not_recorded = MEMORY_OF_EACH

    def __init__(self, solos: list[MemberState], plan: Plan, device: Device) -> None:
        plan = plan.pin(graph=False)
        self.solos, self._plan, self._device = solos, plan, device
        self._steps: list[Step] = []
        for solo in solos:
            state = TrainState(
                solo.model, solo.optimizer, solo.ema, device.grad_scaler(plan.precision)
            )
            self._steps.append(Step(solo.task, plan, device, state))
        self._is_broken = [False] * len(solos)

    def step(self, batch: PackBatch) -> Tensor:
        losses = [self._step(slot, batch) for slot in range(len(self.solos))]
        return torch.stack([loss.to(losses[0].dtype) for loss in losses])

    def _step(self, slot: int, batch: PackBatch) -> Tensor:
        solo = self.solos[slot]
        if self._is_broken[slot]:  # alone it would have stopped
            solo.step += 1
            return torch.full((), math.nan, device=self._device.torch_device)
        result = self._steps[slot](batch.own(slot), solo.step)
        solo.step += 1
        if result.is_bad:
            self._is_broken[slot] = True
            return torch.full((), math.nan, device=self._device.torch_device)
        num_flagged = self._steps[slot].guard.num_flagged
        if isinstance(num_flagged, Tensor):  # known on the device alone, which is not waited for
            return torch.where(num_flagged > 0, math.nan, result.loss)
        return result.loss

    def evaluate(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        return [
            evaluate(
                solo.task, solo.kept_model, data, feed, self._device, precision=self._plan.precision
            )
            for solo in self.solos
        ]

    def states(self, slots: Sequence[int]) -> list[dict[str, Any]]:
        return [self.solos[slot].state() for slot in slots]

    def keep(self, slots: Sequence[int]) -> None:
        self.solos = [self.solos[slot] for slot in slots]
        self._steps = [self._steps[slot] for slot in slots]
        self._is_broken = [self._is_broken[slot] for slot in slots]
