"""The engine that trains one member after the other, by one compiled program for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from volano.data import Feed
from volano.device import Device
from volano.packing.engines.engine import MEMORY_OF_EACH, Engine
from volano.packing.engines.stacked import CompiledStack
from volano.packing.member import MemberState
from volano.packing.pack_feed import PackBatch
from volano.packing.program_cache import ProgramCache
from volano.plan import Plan


class CompiledInTurn(Engine):
    """An engine for members that gain nothing from a common program (convolutions on a CPU): they
    share a compiled step, which is made once, for one member, and runs for each in turn."""

    name: ClassVar[str] = "each"
    why_not_recorded = MEMORY_OF_EACH

    def __init__(
        self, solos: list[MemberState], family: ProgramCache, plan: Plan, device: Device
    ) -> None:
        plan = plan.pin(graph=False)
        self._engines = [CompiledStack([solo], family, plan, device) for solo in solos]

    @property
    def solos(self) -> list[MemberState]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The members, in slot order."""
        return [engine.solos[0] for engine in self._engines]

    def step(self, batch: PackBatch) -> Tensor:
        # All members are made ready before the first one steps, so that a refusal leaves no member
        # a step behind another.
        steps = [
            engine.ready(PackBatch([batch.own(slot)], (0,)))
            for slot, engine in enumerate(self._engines)
        ]
        return torch.cat([step() for step in steps])

    def evaluate(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        return [engine.evaluate(data, feed)[0] for engine in self._engines]

    def evaluate_together(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        return [engine.evaluate_together(data, feed)[0] for engine in self._engines]

    def settled(self) -> list[MemberState]:
        return [engine.settled()[0] for engine in self._engines]

    def states(self, slots: Sequence[int]) -> list[dict[str, Any]]:
        return [self._engines[slot].states([0])[0] for slot in slots]

    def keep(self, slots: Sequence[int]) -> None:
        self._engines = [self._engines[slot] for slot in slots]
