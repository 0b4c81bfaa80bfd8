"""Chooses the engine that trains a pack: by timing, after the engine has shown that it computes the
same as the reference."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volano.data import Feed
from volano.device import Device
from volano.packing.engines.compiled_in_turn import CompiledInTurn
from volano.packing.engines.engine import Engine
from volano.packing.engines.sequential import Sequential
from volano.packing.engines.stacked import CompiledStack, Stacked
from volano.packing.equality import (
    WARM_STEPS,
    MemberAlone,
    check_steps,
    timed_steps,
    why_evaluated_alone,
)
from volano.packing.feed import PackBatch, PackFeed, Place
from volano.packing.member import Member, MemberState
from volano.packing.program_cache import ProgramCache
from volano.packing.refusal import NotPackable
from volano.plan import Plan

ENGINES: dict[str, type[Stacked] | type[CompiledInTurn]] = {
    "lowered": Stacked,
    "compiled": CompiledStack,
    "each": CompiledInTurn,
}
# The number of trial steps: the first makes programs and warms caches, the others are timed.
NUM_STEPS = 4
# Steps of a member alone, to measure what a pack gains: one in so many of all members' future
# steps, at least and at most. If other processes compute on the same cores, 8 steps took 0.2 or 1.8
# ms each, depending on interruptions.
_ONE_ALONE_IN, _LEAST_ALONE, _MOST_ALONE = 50, 8, 64
# Trying a second engine costs a few such steps; it is tried if the future steps are so many times
# more.
_LEAST_SHARE = 25
# An engine so many times slower than the loop is given up once it is warm.
_HOPELESS = 1.5
# The number of members that are also trained alone, to be timed and compared with.
_NUM_CHECKED = 2
# Compiling takes 6 to 14 s for nets of a few layers, and halves a step (docs/log.md, "Packs").
_COMPILE_SECONDS, _GAIN = 10.0, 2.0
# On an accelerator Triton compiles each kernel: 20 to 60 s were seen for programs of packs.
_TIMES_ON_ACCELERATOR = 4.0
# Tracing a program takes 0.1 to 0.3 s; what the loop does in less than this is not worth it.
_WORTH_TRACING = 0.5
# Packs at most so many times larger or smaller keep the same engine without timing it again.
_LIKE_SIZES = 2.0
# If packed layers are so many times slower than the loop, fusing the operations between them does
# not make up for it. Compiling one member's step then saves about so much of each step.
_COMPILED_UNTIL, _GAIN_OF_ONE = 1.3, 0.15


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """The engine for packs of a family.

    Attributes:
        engine: the engine's name.
        seconds: engine that was tried -> seconds of one step of the whole pack under it.
        refused: engine -> why it was not taken; ``"evaluation"`` -> why each member is evaluated
            alone.
        num_members: number of members of the pack.
        solo_seconds: seconds of a typical step of one member trained alone, see
            :func:`seconds_alone`; None if the loop was chosen, which trains each member alone.
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
    feed: PackFeed,
    plan: Plan,
    device: Device,
    *,
    num_steps: int,
    on_notice: Callable[[str], None],
) -> tuple[EngineChoice, int]:
    """Returns the engine for a pack, and the number of members for which it has or makes a program.

    The engine is the one of other packs of the family of about as many members. If there are none,
    it is found by timing the engines on copies of the members.

    Args:
        members: the members of the pack, as they stand.
        family: the members' family.
        feed: the pack's feed.
        plan, device: the plan and the device, as for a training alone.
        num_steps: number of pack-steps expected under the choice, in this pack and others, by which
            it is decided whether compiling pays.
        on_notice: called with the reason if no engine but the loop is taken.
    """
    known = family.choices.get(len(members))
    if known is not None:
        return known, len(members)
    size = size_that_fits(family.choices, len(members))
    if size is not None:
        return family.choices[size], size
    choice = like_choice(family.choices, len(members))
    if choice is not None:
        return choice, len(members)
    places = [Place(m.task.order_seed, 0 if m.state is None else m.state["step"]) for m in members]
    left = min(m.task.num_steps - place.step for m, place in zip(members, places, strict=True))
    if left < num_alone(1, 0):  # the trial steps are steps of their runs
        num_steps = min(num_steps, left)
    ahead = feed.first_batches(places, min(NUM_STEPS, left))
    choice = _timed(
        members, family, plan, device, ahead, num_steps=num_steps, valid=feed.part_of_valid()
    )
    if choice.engine != "loop":
        fed = feed.batches(places[:1], min(num_alone(len(members), num_steps), left))
        choice = dataclasses.replace(
            choice, solo_seconds=seconds_alone(members[0], plan, device, fed)
        )
    if len(choice.seconds) > 1:  # else there were too few steps to try others
        family.choices[len(members)] = choice
    if choice.engine == "loop" and (len(choice.seconds) > 1 or choice.is_refused):
        notice = why_one_by_one(choice)
        family.tell_once(on_notice, notice)
    return choice, len(members)


def _timed(
    members: Sequence[Member],
    family: ProgramCache,
    plan: Plan,
    device: Device,
    batches: Sequence[PackBatch],
    *,
    num_steps: int,
    valid: tuple[Any, Feed] | None,
) -> EngineChoice:
    references = _alone(members, batches, plan, device)
    seconds = {"loop": min(reference.seconds for reference in references.values()) * len(members)}
    refused: dict[str, str] = {}
    why_loop = "one member" if len(members) == 1 else None
    if num_steps < _LEAST_SHARE * NUM_STEPS or seconds["loop"] * num_steps < _WORTH_TRACING:
        why_loop = "its steps are too few to look for a faster engine"
    if why_loop is not None:
        return EngineChoice(
            engine="loop", seconds=seconds, refused={"lowered": why_loop}, num_members=len(members)
        )

    def seconds_of(name: str, *, hopeless: float = math.inf) -> float:
        # On members that start from their first step: the compiled program too must show that it
        # computes the same as a training alone.
        solos = [MemberState(member, plan, device) for member in members]
        engine = make_engine(name, solos, family, plan, device)
        rows, found = timed_steps(engine, device, batches, hopeless=hopeless)
        check_steps(engine, rows, references)
        if valid is not None and family.why_evaluated_alone is None and len(rows) == len(batches):
            family.why_evaluated_alone = why_evaluated_alone(engine, references, *valid)
        return found

    try:
        seconds["lowered"] = seconds_of("lowered", hopeless=_HOPELESS * seconds["loop"])
    except NotPackable as reason:
        refused["lowered"] = str(reason)
    else:
        name = "compiled" if seconds["lowered"] <= _COMPILED_UNTIL * seconds["loop"] else "each"
        saved = (
            seconds["lowered"] * (1.0 - 1.0 / _GAIN)
            if name == "compiled"
            else seconds["loop"] * _GAIN_OF_ONE
        )
        startup = compile_seconds(device)
        if saved * num_steps < startup:
            refused["compiled"] = f"its steps are too few to win back about {startup:.0f} s"
        else:
            try:
                seconds[name] = seconds_of(name)
            except NotPackable as reason:
                refused[name] = str(reason)
    if family.why_evaluated_alone is not None and len(seconds) > 1:
        refused["evaluation"] = family.why_evaluated_alone
    return EngineChoice(
        engine=min(seconds, key=lambda name: seconds[name]),
        seconds=seconds,
        refused=refused,
        num_members=len(members),
        is_refused="lowered" not in seconds,
    )


def compile_seconds(device: Device) -> float:
    """Returns the seconds that compiling a pack's program takes, as far as is known beforehand."""
    return _COMPILE_SECONDS * (1.0 if device.is_cpu else _TIMES_ON_ACCELERATOR)


def _alone(
    members: Sequence[Member], batches: Sequence[PackBatch], plan: Plan, device: Device
) -> dict[int, MemberAlone]:
    """Trains some members alone. Returns them by slot."""
    slots = sorted({0, len(members) - 1})[:_NUM_CHECKED]
    return {
        slot: MemberAlone(
            members[slot], [PackBatch([batch.of(slot)], (0,)) for batch in batches], plan, device
        )
        for slot in slots
    }


def num_alone(num_members: int, num_steps: int) -> int:
    """Returns the number of steps to give to :func:`seconds_alone`.

    Args:
        num_members: number of members of the pack.
        num_steps: number of expected pack-steps, as for :func:`choose_engine`.
    """
    return WARM_STEPS + min(
        max(num_members * num_steps // _ONE_ALONE_IN, _LEAST_ALONE), _MOST_ALONE
    )


def seconds_alone(
    member: Member, plan: Plan, device: Device, batches: Generator[PackBatch, None, None]
) -> float:
    """Returns the seconds of a typical step of a member trained alone, timed as a pack's training
    is: the mean of steps in a row with their feeding, waiting for the device only at the end.
    Making programs and warming caches comes before and is not counted.

    Args:
        member, plan, device: the member, its plan and device, as for a training alone.
        batches: the batches of its next steps, only its own, as a feed makes them; more than two.
    """
    solo = MemberState(member.with_private_code(), plan, device)
    engine = Sequential([solo], plan, device)
    start, timed = 0.0, -WARM_STEPS
    with contextlib.closing(batches):
        for batch in batches:
            if timed == 0:
                device.synchronize()
                start = time.perf_counter()
            engine.step(batch)
            timed += 1
        device.synchronize()
    return (time.perf_counter() - start) / timed


def like_choice(choices: Mapping[int, EngineChoice], num_members: int) -> EngineChoice | None:
    """Returns the choice for packs of about as many members, if their engine was found by timing
    more than the loop."""
    timed = {size: choice for size, choice in choices.items() if len(choice.seconds) > 1}
    near = [
        size
        for size in timed
        if 1 / _LIKE_SIZES <= num_members / size <= _LIKE_SIZES and num_members > 1
    ]
    if not near:
        return None
    choice = timed[min(near, key=lambda size: abs(size - num_members))]
    if choice.engine != "compiled":
        return choice
    return dataclasses.replace(choice, engine="lowered")  # another size would have to be compiled


def size_that_fits(choices: Mapping[int, EngineChoice], num_members: int) -> int | None:
    """Returns the size of a program that was compiled for more members and trains these few sooner
    than the traced one would, or None. Its empty slots are computed for nothing."""
    for size, choice in sorted(choices.items()):
        if size > num_members and choice.engine == "compiled":
            others = [
                seconds / size * num_members
                for name, seconds in choice.seconds.items()
                if name != "compiled"
            ]
            if choice.seconds["compiled"] < min(others):
                return size
    return None


def is_loop_sooner(choice: EngineChoice, num_members: int) -> bool:
    """Checks whether so few of the members for which an engine was chosen train sooner one by one.

    A compiled program keeps its size. For a traced program, half of the time is assumed to be the
    same for any number of members: between a device bound by launches and one bound by arithmetic.
    """
    if choice.engine in ("loop", "each") or "loop" not in choice.seconds:
        return False
    share = 1.0 if choice.engine == "compiled" else (1.0 + num_members / choice.num_members) / 2
    loop = choice.seconds["loop"] * num_members / choice.num_members
    return loop < choice.seconds[choice.engine] * share


def make_engine(
    name: str, solos: list[MemberState], family: ProgramCache | None, plan: Plan, device: Device
) -> Engine:
    """Makes an engine by name. All engines but the loop need a family."""
    if name == "loop" or family is None:
        return Sequential(solos, plan, device)
    return ENGINES[name](solos, family, plan, device)


def why_one_by_one(choice: EngineChoice) -> str:
    """Returns in words why members are trained in turn."""
    times = ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in choice.seconds.items())
    reasons = "; ".join(
        f"{name}: {reason}"
        for name, reason in choice.refused.items()
        if name not in ("compiled", "evaluation")
    )
    return (
        f"members are trained one after the other ({times} a "
        f"step{'; ' if reasons else ''}{reasons})"
    )
