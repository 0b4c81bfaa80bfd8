"""Which engine trains a pack: found by timing, after the engine has shown that it computes what the reference does."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from volano.data import Feed
from volano.device import Device
from volano.packing.engines.compiled_in_turn import CompiledInTurn
from volano.packing.engines.engine import Engine
from volano.packing.engines.sequential import Sequential
from volano.packing.engines.stacked import CompiledStack, Lowered, Mapped, Stacked
from volano.packing.equality.check_engine import MembersAlone
from volano.packing.feed import PackBatch
from volano.packing.member import Member
from volano.packing.member_state import MemberState
from volano.packing.program_cache import ProgramCache
from volano.packing.refusal import NotPackable
from volano.packing.structure.side_effects import private_copy
from volano.plan import Plan

ENGINES: dict[str, type[Stacked] | type[CompiledInTurn]] = {
    "mapped": Mapped, "lowered": Lowered, "compiled": CompiledStack, "each": CompiledInTurn,
}  # fmt: skip
# Steps: the first makes programs and warms caches, the others are timed.
NUM_STEPS = 4
# Steps of a member alone, for what a pack gains: one in so many of all members' steps to come, at least and at most.
# Where others compute on the same cores 8 took 0.2 or 1.8 ms each, as they were interrupted or not.
_ONE_ALONE_IN, _LEAST_ALONE, _MOST_ALONE = 50, 8, 64
# Looking at a second engine costs a few of these; it is done where the steps to come are so many times more.
_LEAST_SHARE = 25
# An engine so many times slower than the loop is not looked at for longer, once it is warm.
_HOPELESS, _WARM_STEPS = 1.5, 2
# Members that are also trained alone, to be timed and to be compared with.
_NUM_CHECKED = 2
# Compiling takes 6 to 14 s for nets of a few layers, and halves a step (docs/log.md, "Packs").
_COMPILE_SECONDS, _GAIN = 10.0, 2.0
# Tracing a program takes 0.1 to 0.3 s; what the loop does in less than this is not worth it.
_WORTH_TRACING = 0.5
# Packs at most so many times larger or smaller are trained by the same engine without timing it again.
_LIKE_SIZES = 2.0
# Where packed layers are so many times slower than the loop, fusing what is between them does not make up for it; one
# member's compiled step then saves about so much of each.
_COMPILED_UNTIL, _GAIN_OF_ONE = 1.3, 0.15


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """An engine for packs of a family.

    Attributes:
        engine: its name.
        seconds: of one step of the whole pack under each engine that was tried.
        refused: why an engine was not taken, by name; under ``"evaluation"`` why each member is evaluated alone.
        num_members: of the pack.
        solo_seconds: of a typical step of one member trained alone, see :func:`seconds_alone`; None where the loop was
            chosen, which trains each alone.
        is_refused: whether no faster engine takes the members.
    """

    engine: str
    seconds: dict[str, float]
    refused: dict[str, str]
    num_members: int = 1
    solo_seconds: float | None = None
    is_refused: bool = False


def choose_engine(
    members: Sequence[Member],
    family: ProgramCache,
    plan: Plan,
    device: Device,
    batches: Sequence[PackBatch],
    *,
    num_steps: int,
    valid: tuple[Any, Feed] | None = None,
) -> EngineChoice:
    """Times the engines on copies of the members.

    Args:
        members: of the pack, as they stand.
        family: theirs.
        plan, device: as of a training alone.
        batches: of their next :data:`NUM_STEPS` steps.
        num_steps: pack-steps that are expected under the choice, in this pack and others: whether compiling pays.
        valid: of their validation set as much as shows whether an engine evaluates as each does alone, and its feed.
    """
    alone, solo_seconds = _alone(members, plan, device, batches)
    seconds = {"loop": solo_seconds * len(members)}
    refused: dict[str, str] = {}
    why_loop = "one member" if len(members) == 1 else None
    if num_steps < _LEAST_SHARE * NUM_STEPS or seconds["loop"] * num_steps < _WORTH_TRACING:
        why_loop = "its steps are too few to look for a faster engine"
    if why_loop is not None:
        return EngineChoice(engine="loop", seconds=seconds, refused={"lowered": why_loop}, num_members=len(members))
    trial = _Trial(members, family, plan, device, batches, alone, valid)
    for name in ("lowered", "mapped"):  # the second where the first refuses
        try:
            seconds[name] = trial.seconds(name, hopeless=_HOPELESS * seconds["loop"])
            break
        except NotPackable as reason:
            refused[name] = str(reason)
    if "lowered" in seconds:
        name = "compiled" if seconds["lowered"] <= _COMPILED_UNTIL * seconds["loop"] else "each"
        saved = seconds["lowered"] * (1.0 - 1.0 / _GAIN) if name == "compiled" else seconds["loop"] * _GAIN_OF_ONE
        if saved * num_steps < _COMPILE_SECONDS:
            refused["compiled"] = f"its steps are too few to win back about {_COMPILE_SECONDS:.0f} s"
        else:
            try:
                seconds[name] = trial.seconds(name)
            except NotPackable as reason:
                refused[name] = str(reason)
    if family.why_evaluated_alone is not None and len(seconds) > 1:
        refused["evaluation"] = family.why_evaluated_alone
    best = min(seconds, key=lambda name: seconds[name])
    is_refused = "lowered" not in seconds and "mapped" not in seconds
    return EngineChoice(
        engine=best, seconds=seconds, refused=refused, num_members=len(members), is_refused=is_refused
    )  # fmt: skip


def num_alone(num_members: int, num_steps: int) -> int:
    """Steps to give to :func:`seconds_alone`.

    Args:
        num_members: of the pack.
        num_steps: pack-steps that are expected, as for :func:`choose_engine`.
    """
    return _WARM_STEPS + min(max(num_members * num_steps // _ONE_ALONE_IN, _LEAST_ALONE), _MOST_ALONE)


def seconds_alone(member: Member, plan: Plan, device: Device, batches: Iterable[PackBatch]) -> float:
    """Seconds of a typical step of a member trained alone, timed as a pack's training is: the mean of steps in a row
    with their feeding, waiting for the device only at the end. What makes programs and warms caches comes before.

    Args:
        member, plan, device: as of a training alone.
        batches: of its next steps, its own alone, as a feed makes them; more than two.
    """
    engine = Sequential([MemberState(_private(member), plan, device)], plan, device)
    start, timed = 0.0, -_WARM_STEPS
    for batch in batches:
        if timed == 0:
            device.synchronize()
            start = time.perf_counter()
        engine.step(batch)
        timed += 1
    device.synchronize()
    return (time.perf_counter() - start) / timed


def _alone(
    members: Sequence[Member], plan: Plan, device: Device, batches: Sequence[PackBatch]
) -> tuple[dict[int, tuple[MemberState, list[float]]], float]:
    """Some members trained one by one, by slot, each with its losses, and the seconds of one step of one of them."""
    slots = sorted({0, len(members) - 1})[:_NUM_CHECKED]
    alone: dict[int, tuple[MemberState, list[float]]] = {}
    shortest = math.inf
    for slot in slots:
        solo = MemberState(_private(members[slot]), plan, device)
        rows, seconds = _run(Sequential([solo], plan, device), device, _own(batches, slot))
        alone[slot] = solo, [row[0].item() for row in rows]
        shortest = min(shortest, seconds)
    return alone, shortest


def _own(batches: Sequence[PackBatch], slot: int) -> list[PackBatch]:
    return [PackBatch([batch.of(slot)], (0,)) for batch in batches]


def _private(member: Member) -> Member:
    """A member whose own code, which may count its calls, is not called more often for having been tried."""
    task = member.task
    return dataclasses.replace(
        member,
        task=dataclasses.replace(task, objective=private_copy(task.objective), augment=private_copy(task.augment)),
    )


class _Trial:
    """Engines are tried one after the other, each on members that start anew: what is compiled has to show that it
    computes what is computed alone, like any other."""

    def __init__(
        self,
        members: Sequence[Member],
        family: ProgramCache,
        plan: Plan,
        device: Device,
        batches: Sequence[PackBatch],
        alone: dict[int, tuple[MemberState, list[float]]],
        valid: tuple[Any, Feed] | None,
    ) -> None:
        self._members, self._family, self._plan, self._device = members, family, plan, device
        self._batches, self._valid = batches, valid
        self._references = {
            slot: MembersAlone(_private(members[slot]), solo, losses, _own(batches, slot), plan, device)
            for slot, (solo, losses) in alone.items()
        }

    def seconds(self, name: str, *, hopeless: float = math.inf) -> float:
        """Of a step under an engine.

        Raises:
            NotPackable: it does not take the members, or they come to something else than alone.
        """
        solos = [MemberState(member, self._plan, self._device) for member in self._members]
        engine = ENGINES[name](solos, self._family, self._plan, self._device)
        rows, seconds = _run(engine, self._device, self._batches, hopeless=hopeless)
        for slot, reference in self._references.items():
            reference.check_losses([row[slot].item() for row in rows])
        if len(rows) == len(self._batches):  # else it is too slow to be taken
            states = engine.states(list(self._references))
            for reference, state in zip(self._references.values(), states, strict=True):
                reference.check_state(state)
            self._compare_evaluations(engine)
        return seconds

    def _compare_evaluations(self, engine: Engine) -> None:
        if self._valid is None or self._family.why_evaluated_alone is not None:
            return
        try:
            rows = engine.evaluate_together(*self._valid)
            for slot, reference in self._references.items():
                reference.check_evaluation(rows[slot], *self._valid)
        except NotPackable as reason:  # the training keeps its engine
            self._family.why_evaluated_alone = str(reason)


def _run(
    engine: Engine, device: Device, batches: Sequence[PackBatch], *, hopeless: float = math.inf
) -> tuple[list[Tensor], float]:
    rows: list[Tensor] = []
    shortest = math.inf
    for given in batches:
        batch = given.copy()  # the other engines are given the same one
        device.synchronize()
        start = time.perf_counter()
        rows.append(engine.step(batch))
        device.synchronize()
        if len(rows) > 1:  # the first is not timed, unless it is the only one
            shortest = min(shortest, time.perf_counter() - start)
        if len(rows) > _WARM_STEPS and shortest > hopeless:
            break
    return rows, shortest


def like_choice(choices: Mapping[int, EngineChoice], num_members: int) -> EngineChoice | None:
    """The choice for packs of about as many members, where their engine was found by timing more than the loop."""
    timed = {size: choice for size, choice in choices.items() if len(choice.seconds) > 1}
    near = [size for size in timed if 1 / _LIKE_SIZES <= num_members / size <= _LIKE_SIZES and num_members > 1]
    if not near:
        return None
    choice = timed[min(near, key=lambda size: abs(size - num_members))]
    if choice.engine != "compiled":
        return choice
    return dataclasses.replace(choice, engine="lowered")  # another size would have to be compiled


def size_that_fits(choices: Mapping[int, EngineChoice], num_members: int) -> int | None:
    """The size of a program that was compiled for more members and trains so few sooner than the traced one would, or
    None. Its empty slots are computed for nothing."""
    for size, choice in sorted(choices.items()):
        if size > num_members and choice.engine == "compiled":
            others = [seconds / size * num_members for name, seconds in choice.seconds.items() if name != "compiled"]
            if choice.seconds["compiled"] < min(others):
                return size
    return None


def is_loop_sooner(choice: EngineChoice, num_members: int) -> bool:
    """Whether so few of the members that an engine was chosen for train sooner one by one.

    A compiled program keeps its size. Of a traced one half of the time is taken to be the same for any number of
    members: between that of a device bound by launches and that of one bound by arithmetic.
    """
    if choice.engine in ("loop", "each") or "loop" not in choice.seconds:
        return False
    share = 1.0 if choice.engine == "compiled" else (1.0 + num_members / choice.num_members) / 2
    loop = choice.seconds["loop"] * num_members / choice.num_members
    return loop < choice.seconds[choice.engine] * share


def make_engine(name: str, solos: list[MemberState], family: ProgramCache | None, plan: Plan, device: Device) -> Engine:
    """An engine by name. A family is needed by all but the loop."""
    if name == "loop" or family is None:
        return Sequential(solos, plan, device)
    return ENGINES[name](solos, family, plan, device)


def why_one_by_one(choice: EngineChoice) -> str:
    """Why members are trained in turn, in words."""
    times = ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in choice.seconds.items())
    reasons = "; ".join(
        f"{name}: {reason}" for name, reason in choice.refused.items() if name not in ("compiled", "evaluation")
    )
    return f"members are trained one after the other ({times} a step{'; ' if reasons else ''}{reasons})"
