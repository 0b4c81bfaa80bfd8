"""A pack: K configurations of one structure, trained together over one feed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.errors import UsageError
from volano.packing.choose_engine import (
    EngineChoice,
    choose_engine,
    is_loop_sooner,
    make_engine,
    pays_to_compact,
    why_one_by_one,
)
from volano.packing.member import Member, MemberState
from volano.packing.pack_feed import FeedPlace, PackFeed
from volano.packing.program_cache import ProgramCache
from volano.packing.refusal import NotPackable
from volano.plan import Plan

# Losses are read from the device together, after this many steps at the latest.
_MOST_UNREAD = 512


class Pack:
    """A pack of members that train together. Each learns the same as ``volano.train`` of its task
    alone under the plain plan: from the same weights, over the same order of the data, with the
    same draws and its own schedule and step count.

    Args:
        members: members of one structure.
        device: the device's name as torch writes it; None is the accelerator, or the CPU if there
            is none.
        precision: the precision of the forward and backward pass: ``"fp32"``, ``"tf32"`` or
            ``"bf16"``.
        engine: ``"loop"``, ``"lowered"``, ``"compiled"`` or ``"each"``; None takes the fastest,
            found by timing.
        family: the members' family, with the programs that were made for other packs of it; it is
            found if this is None or another family.
        num_steps: number of pack-steps expected in this pack and others of its family, which
            decides whether compiling pays; None takes those of the first member's task.
        on_notice: called with notices for the user.
        graph: whether the kernels of a step of all members are recorded once and launched as one;
            None records them if the device can. ``refused["graph"]`` says why they are not.

    Raises:
        UsageError: there are no members, two have the same number, they have several structures,
            one keeps its best weights, or the engine does not take them.
    """

    def __init__(
        self, members: Sequence[Member], *, device: str | None = None, precision: str = "fp32",
        engine: str | None = None, family: ProgramCache | None = None,
        num_steps: int | None = None, on_notice: Callable[[str], None] = lambda _: None,
        graph: bool | None = None,
    ) -> None:  # fmt: skip
        numbers = [member.number for member in members]
        if not members or len(set(numbers)) < len(numbers):
            raise UsageError("A pack needs members, each with a number of its own", got=numbers)
        _check_kept(members)
        self._device = Device(device)
        # The choice of the engine; None if the engine was given.
        self.choice: EngineChoice | None = None
        self._plan = _plan_of(self._device, precision, graph)
        self._task = members[0].task
        self._on_notice = on_notice
        with random_state_kept(self._device):
            solos = [MemberState(member, self._plan, self._device) for member in members]
            self._feed = PackFeed(self._task, self._plan, self._device, on_notice)
            self.family = family = ProgramCache.of(
                solos, family, self._device, precision, may_differ=engine == "loop"
            )
            if graph and not self._plan.graph:
                family.refused["graph"] = f"{self._device.name} records none"
            name, size = engine, len(solos)
            if name is None:
                self.choice, size = choose_engine(
                    members, family, self._feed, self._plan, self._device,
                    num_steps=num_steps or self._task.num_steps, on_notice=on_notice,
                )  # fmt: skip
                name = self.choice.engine
            # Copies of the first member fill a program up to its size.
            fillers = [
                dataclasses.replace(members[0], number=-1 - place)
                for place in range(size - len(solos))
            ]
            solos += [MemberState(filler, self._plan, self._device) for filler in fillers]
            self._engine = make_engine(name, solos, family, self._plan, self._device)
            self._live = list(range(len(members)))  # slots of members; the other slots are fillers
        self._unread: list[Tensor] = []
        self._sums = dict.fromkeys(numbers, 0.0)
        self._counts = dict.fromkeys(numbers, 0)

    @property
    def _members(self) -> list[MemberState]:
        return [self._engine.solos[slot] for slot in self._live]

    @property
    def numbers(self) -> list[int]:
        """The members' numbers, in slot order."""
        return [solo.number for solo in self._members]

    @property
    def engine(self) -> str:
        """The engine that trains them: ``"loop"``, ``"lowered"``, ``"compiled"`` or ``"each"``."""
        return self._engine.name

    @property
    def refused(self) -> dict[str, str]:
        """The engines that were not taken and why, and what does not run as the engine does."""
        found = {**(self.choice.refused if self.choice else {}), **self.family.refused}
        if self._plan.graph and self._engine.why_not_recorded is not None:
            found["graph"] = self._engine.why_not_recorded
        return found

    @property
    def steps(self) -> dict[int, int]:
        """The step at which each member stands."""
        return {solo.number: solo.step for solo in self._members}

    def advance(self, until: Mapping[int, int]) -> None:
        """Trains every member to step ``until[number]``. All members make the same number of steps.

        Raises:
            UsageError: a member is missing, or the numbers of steps differ.
        """
        distances = {number: until.get(number, step) - step for number, step in self.steps.items()}
        (num_steps,) = set(distances.values()) if len(set(distances.values())) == 1 else (-1,)
        if num_steps < 0:
            raise UsageError(
                "The members of a pack must go forward by the same number of steps", got=distances
            )
        goal = self._members[0].step + num_steps
        with random_state_kept(self._device):
            self._fit_members(num_steps)
            while self._members[0].step < goal:
                self._go(goal - self._members[0].step)

    def _go(self, num_steps: int) -> None:
        """Makes steps, up to a batch that the engine does not take: the loop continues from
        there."""
        first = self._members[0]
        live = set(self._live)
        # Empty slots get the first member's batches again.
        places = [
            FeedPlace(solo.task.order_seed, solo.step)
            if slot in live
            else FeedPlace(first.task.order_seed, first.step)
            for slot, solo in enumerate(self._engine.solos)
        ]
        with contextlib.closing(self._feed.batches(places, num_steps)) as batches:
            for batch in batches:
                try:
                    self._unread.append(self._engine.step(batch))
                except NotPackable as reason:
                    self._go_on_one_by_one(reason)
                    return
                if len(self._unread) >= _MOST_UNREAD:
                    self._read()
        self._read()

    def _go_on_one_by_one(self, reason: NotPackable) -> None:
        if self.choice is None:
            raise UsageError(
                f"Engine {self.engine} does not take these tasks",
                got=str(reason),
                remedy="Leave the choice to the pack",
            ) from reason
        refused = {**self.choice.refused, f"{self.engine}, later": str(reason)}
        self.choice = dataclasses.replace(
            self.choice, engine="loop", refused=refused, is_refused=True
        )
        self.family.choices[len(self._engine.solos)] = self.choice
        self.family.tell_once(self._on_notice, why_one_by_one(self.choice))
        self._take_loop()

    def _take_loop(self) -> None:
        self._read()
        solos = self._engine.settled()
        self._engine = make_engine(
            "loop", [solos[slot] for slot in self._live], None, self._plan, self._device
        )
        self._live = list(range(len(self._live)))

    def losses(self) -> dict[int, float]:
        """Returns each member's mean training loss since the last call; NaN if one was not finite,
        or no step was made."""
        means = {
            n: self._sums[n] / self._counts[n] if self._counts[n] else float("nan")
            for n in self.numbers
        }
        for number in self.numbers:
            # A member that was not finite once stays NaN: alone it would have ended there.
            self._sums[number] = 0.0 if math.isfinite(self._sums[number]) else math.nan
            self._counts[number] = 0
        return means

    def evaluate(self) -> dict[int, dict[str, float]]:
        """Returns ``loss`` and metrics of each member's kept model over the task's ``valid``; NaN
        for a member whose loss or gradient was not finite at some step: alone it would have ended
        there."""
        valid = self._task.valid
        with random_state_kept(self._device):
            rows = self._engine.evaluate(valid, self._feed.feed_of(valid, self._task.order_seed))
        found = dict(zip(self.numbers, [rows[slot] for slot in self._live], strict=True))
        return {
            number: row if math.isfinite(self._sums[number]) else dict.fromkeys(row, math.nan)
            for number, row in found.items()
        }

    def states(self) -> dict[int, dict[str, Any]]:
        """Returns each member's state on the host, from which it continues in another pack or
        alone."""
        return dict(zip(self.numbers, self._engine.states(self._live), strict=True))

    def keep(self, numbers: Collection[int]) -> None:
        """Keeps these members; the others leave.

        Raises:
            UsageError: no member would be left, or a number is not a member's.
        """
        if not numbers or not set(numbers) <= set(self.numbers):
            raise UsageError(
                "The numbers to keep must be members of the pack",
                got=sorted(numbers),
                remedy=f"Name some of {self.numbers}",
            )
        self._live = [slot for slot in self._live if self._engine.solos[slot].number in numbers]

    def _fit_members(self, num_steps: int) -> None:
        """Makes members that were left behind train as soon as they can for so many steps."""
        num_slots, num_live = len(self._engine.solos), len(self._live)
        if num_live == num_slots:
            return
        if self.choice is not None and is_loop_sooner(self.choice, num_live):
            self._take_loop()
        # Another size would have to be compiled, and would round differently.
        elif self.engine != "compiled" and (
            self.engine != "lowered"
            or self.choice is None
            or pays_to_compact(self.choice, num_slots, num_live, num_steps)
        ):
            self._read()
            self._engine.keep(self._live)
            self._live = list(range(num_live))

    def _read(self) -> None:
        if not self._unread:
            return
        table = torch.stack(self._unread).cpu().double()
        for number, losses in zip(self.numbers, table.T[self._live], strict=True):
            self._sums[number] += losses.sum().item()
            self._counts[number] += len(losses)
        self._unread = []


def _plan_of(device: Device, precision: str, graph: bool | None) -> Plan:
    is_recorded = graph is not False and device.has_graphs
    base = Plan.baseline(device.name)
    return base.pin(precision=precision, optimizer="fused", graph=is_recorded)


def _check_kept(members: Sequence[Member]) -> None:
    best = [member.number for member in members if member.task.keep == "best"]
    if best:
        raise UsageError(
            "The members of a pack must keep their last weights: you say when they are evaluated",
            got=f"tasks with keep='best' of members {best}",
            remedy="Leave `keep` and `patience` out, call `evaluate`, and take the best `states`",
        )
