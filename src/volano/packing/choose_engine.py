"""Which engine trains a pack: found by timing, after the engine has shown that it computes what the
reference does."""

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
# Steps: the first makes programs and warms caches, the others are timed.
NUM_STEPS = 4
# Steps of a member alone, for what a pack gains: one in so many of all members' steps to come, at
# least and at most. Where others compute on the same cores 8 took 0.2 or 1.8 ms each, as they were
# interrupted or not.
_ONE_ALONE_IN, _LEAST_ALONE, _MOST_ALONE = 50, 8, 64
# Looking at a second engine costs a few of these; it is done where the steps to come are so many
# times more.
_LEAST_SHARE = 25
# An engine so many times slower than the loop is not looked at for longer, once it is warm.
_HOPELESS = 1.5
# Members that are also trained alone, to be timed and to be compared with.
_NUM_CHECKED = 2
# Compiling takes 6 to 14 s for nets of a few layers, and halves a step (docs/log.md, "Packs").
_COMPILE_SECONDS, _GAIN = 10.0, 2.0
# Tracing a program takes 0.1 to 0.3 s; what the loop does in less than this is not worth it.
_WORTH_TRACING = 0.5
# Packs at most so many times larger or smaller are trained by the same engine without timing it
# again.
_LIKE_SIZES = 2.0
# Where packed layers are so many times slower than the loop, fusing what is between them does not
# make up for it; one member's compiled step then saves about so much of each.
_COMPILED_UNTIL, _GAIN_OF_ONE = 1.3, 0.15


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """An engine for packs of a family.

    Attributes:
        engine: its name.
        seconds: of one step of the whole pack under each engine that was tried.
        refused: why an engine was not taken, by name; under ``"evaluation"`` why each member is
            evaluated alone.
        num_members: of the pack.
        solo_seconds: of a typical step of one member trained alone, see :func:`seconds_alone`; None
            where the loop was chosen, which trains each alone.
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
    """Returns the engine for a pack, and for how many members it has or makes a program.

    It is that of other packs of the family of about as many members, or else found by timing the
    engines on copies of the members.

    Args:
        members: of the pack, as they stand.
        family: theirs.
        feed: that of the pack.
        plan, device: as of a training alone.
        num_steps: pack-steps that are expected under the choice, in this pack and others: whether
            compiling pays.
        on_notice: told why no engine but the loop is taken.
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
    if left < num_alone(1, 0):  # what is tried are steps of their runs
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
    if len(choice.seconds) > 1:  # else it was too little to be worth a look
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
        # On members that start anew: what is compiled has to show that it computes what is computed
        # alone, too.
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
        if saved * num_steps < _COMPILE_SECONDS:
            refused["compiled"] = (
                f"its steps are too few to win back about {_COMPILE_SECONDS:.0f} s"
            )
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


def _alone(
    members: Sequence[Member], batches: Sequence[PackBatch], plan: Plan, device: Device
) -> dict[int, MemberAlone]:
    """Trains some members alone, by slot."""
    slots = sorted({0, len(members) - 1})[:_NUM_CHECKED]
    return {
        slot: MemberAlone(
            members[slot], [PackBatch([batch.of(slot)], (0,)) for batch in batches], plan, device
        )
        for slot in slots
    }


def num_alone(num_members: int, num_steps: int) -> int:
    """Steps to give to :func:`seconds_alone`.

    Args:
        num_members: of the pack.
        num_steps: pack-steps that are expected, as for :func:`choose_engine`.
    """
    return WARM_STEPS + min(
        max(num_members * num_steps // _ONE_ALONE_IN, _LEAST_ALONE), _MOST_ALONE
    )


def seconds_alone(
    member: Member, plan: Plan, device: Device, batches: Generator[PackBatch, None, None]
) -> float:
    """Seconds of a typical step of a member trained alone, timed as a pack's training is: the mean
    of steps in a row with their feeding, waiting for the device only at the end. What makes
    programs and warms caches comes before.

    Args:
        member, plan, device: as of a training alone.
        batches: of its next steps, its own alone, as a feed makes them; more than two.
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
    """The choice for packs of about as many members, where their engine was found by timing more
    than the loop."""
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
    """The size of a program that was compiled for more members and trains so few sooner than the
    traced one would, or None. Its empty slots are computed for nothing."""
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
    """Whether so few of the members that an engine was chosen for train sooner one by one.

    A compiled program keeps its size. Of a traced one half of the time is taken to be the same for
    any number of members: between that of a device bound by launches and that of one bound by
    arithmetic.
    """
    if choice.engine in ("loop", "each") or "loop" not in choice.seconds:
        return False
    share = 1.0 if choice.engine == "compiled" else (1.0 + num_members / choice.num_members) / 2
    loop = choice.seconds["loop"] * num_members / choice.num_members
    return loop < choice.seconds[choice.engine] * share


def make_engine(
    name: str, solos: list[MemberState], family: ProgramCache | None, plan: Plan, device: Device
) -> Engine:
    """An engine by name. A family is needed by all but the loop."""
    if name == "loop" or family is None:
        return Sequential(solos, plan, device)
    return ENGINES[name](solos, family, plan, device)


def why_one_by_one(choice: EngineChoice) -> str:
    """Why members are trained in turn, in words."""
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
