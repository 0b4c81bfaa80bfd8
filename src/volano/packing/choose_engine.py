"""Chooses the engine that trains a pack: by timing, after the engine has shown that it computes the
same as the reference."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from volano.device import Device
from volano.packing.engines.compiled_in_turn import CompiledInTurn
from volano.packing.engines.engine import Engine
from volano.packing.engines.sequential import Sequential
from volano.packing.engines.stacked import CompiledStack, Stacked
from volano.packing.equality import MemberAlone, check_steps, timed_steps, why_evaluated_alone
from volano.packing.member import Member, MemberState
from volano.packing.pack_feed import FeedPlace, PackBatch, PackFeed
from volano.packing.program_cache import ProgramCache
from volano.packing.refusal import NotPackable
from volano.plan import Plan
from volano.planner.time.compile_time import CompileTime, processor_slowness

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
# It is begun if it is expected to win back so many times what it takes: the gain is a guess (1.2 on
# a processor with AVX2 alone, where it was 2.5 on one with AVX-512), and two workers that guess
# differently wait for each other.
_SURE = 2.0
# On an accelerator Triton compiles each kernel: 20 to 60 s were seen for programs of packs.
_TIMES_ON_ACCELERATOR = 4.0
# Tracing a program takes 0.1 to 0.3 s, and a pack of another size needs one to train and one or two
# to evaluate; what is done in less than this is not worth it.
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
        refused: engine -> why it was not taken.
        num_members: number of members of the pack.
        solo_seconds: seconds of a typical step of one member trained alone; None if the loop was
            chosen, which trains each member alone, or no step was left to time.
        is_refused: whether no faster engine takes the members.
    """

    engine: str
    seconds: dict[str, float]
    refused: dict[str, str]
    num_members: int = 1
    solo_seconds: float | None = None
    is_refused: bool = False


def choose_engine(
    members: Sequence[Member], family: ProgramCache, feed: PackFeed, plan: Plan, device: Device,
    *, num_steps: int, on_notice: Callable[[str], None],
) -> tuple[EngineChoice, int]:  # fmt: skip
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
    num_members, choices = len(members), family.choices
    if num_members in choices:
        return choices[num_members], num_members
    size = size_that_fits(choices, num_members, num_steps)
    if size is not None:
        return choices[size], size
    choice = like_choice(choices, num_members)
    if choice is not None:
        return choice, num_members
    choice = _EngineTrials(members, family, feed, plan, device).choice(num_steps)
    if len(choice.seconds) > 1:  # else there were too few steps to try others
        choices[num_members] = choice
    if choice.engine == "loop" and (len(choice.seconds) > 1 or choice.is_refused):
        family.tell_once(on_notice, why_one_by_one(choice))
    return choice, num_members


class _EngineTrials:
    """The steps of engines on copies of a pack's members, and of some members alone."""

    def __init__(
        self, members: Sequence[Member], family: ProgramCache, feed: PackFeed, plan: Plan,
        device: Device,
    ) -> None:  # fmt: skip
        self._members, self._family, self._feed = members, family, feed
        self._plan, self._device = plan, device
        steps = [0 if m.state is None else m.state["step"] for m in members]
        self._places = [
            FeedPlace(m.task.order_seed, n) for m, n in zip(members, steps, strict=True)
        ]
        # The trial steps are steps of their runs.
        self._left = min(m.task.num_steps - n for m, n in zip(members, steps, strict=True))
        self._batches = feed.first_batches(self._places, min(NUM_STEPS, self._left))
        self._alone = alone(members, self._batches, plan, device)

    def choice(self, num_steps: int) -> EngineChoice:
        """Returns the engine that takes the least time a step, with what it gains."""
        if self._left < _LEAST_ALONE + NUM_STEPS:
            num_steps = min(num_steps, self._left)
        choice = self._timed(num_steps)
        if choice.engine == "loop":
            return choice
        reference, first = self._alone[0], self._places[0]
        num = min(num_alone(len(self._members), num_steps), self._left - reference.num_steps)
        if num <= 0:
            return choice
        later = first._replace(step=first.step + reference.num_steps)
        solo_seconds = reference.seconds_of_next(self._feed.batches([later], num))
        return dataclasses.replace(choice, solo_seconds=solo_seconds)

    def _timed(self, num_steps: int) -> EngineChoice:
        num_members = len(self._members)
        seconds = {"loop": min(one.seconds for one in self._alone.values()) * num_members}
        refused: dict[str, str] = {}
        why_loop = "one member" if num_members == 1 else None
        if num_steps < _LEAST_SHARE * NUM_STEPS or seconds["loop"] * num_steps < _WORTH_TRACING:
            why_loop = "its steps are too few to look for a faster engine"
        if why_loop is not None:
            refused["lowered"] = why_loop
            return EngineChoice(
                engine="loop", seconds=seconds, refused=refused, num_members=num_members
            )
        try:
            seconds["lowered"] = self._seconds_of("lowered", _HOPELESS * seconds["loop"])
            self._try_compiling(seconds, refused, num_steps)
        except NotPackable as reason:
            refused["lowered"] = str(reason)
        return EngineChoice(
            engine=min(seconds, key=lambda name: seconds[name]), seconds=seconds, refused=refused,
            num_members=num_members, is_refused="lowered" not in seconds,
        )  # fmt: skip

    def _try_compiling(
        self, seconds: dict[str, float], refused: dict[str, str], num_steps: int
    ) -> None:
        if seconds["lowered"] <= _COMPILED_UNTIL * seconds["loop"]:
            name, saved = "compiled", seconds["lowered"] * (1.0 - 1.0 / _GAIN)
        else:
            name, saved = "each", seconds["loop"] * _GAIN_OF_ONE
        startup = compile_seconds(self._device)
        if saved * num_steps < _SURE * startup:
            refused["compiled"] = f"its steps are too few to surely win back about {startup:.0f} s"
            return
        try:
            seconds[name] = self._seconds_of(name)
        except NotPackable as reason:
            refused[name] = str(reason)

    def _seconds_of(self, name: str, hopeless: float = math.inf) -> float:
        # On members that start from their first step: the compiled program too must show that it
        # computes the same as a training alone.
        solos = [MemberState(member, self._plan, self._device) for member in self._members]
        family, valid = self._family, self._feed.part_of_valid()
        engine = make_engine(name, solos, family, self._plan, self._device)
        rows, found = timed_steps(engine, self._device, self._batches, hopeless=hopeless)
        check_steps(engine, rows, self._alone)
        is_whole = len(rows) == len(self._batches)
        if valid is not None and "evaluation" not in family.refused and is_whole:
            reason = why_evaluated_alone(engine, self._alone, *valid)
            family.refused |= {} if reason is None else {"evaluation": reason}
        return found


def compile_seconds(device: Device) -> float:
    """Returns the seconds that compiling a pack's program takes, by what compilations took on this
    machine before."""
    expected = _COMPILE_SECONDS * (1.0 if device.is_cpu else _TIMES_ON_ACCELERATOR)
    return expected * CompileTime(device).factor


def alone(
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
    """Returns the number of steps of a member alone that show what a pack of so many members
    gains, of which so many pack-steps are expected."""
    return min(max(num_members * num_steps // _ONE_ALONE_IN, _LEAST_ALONE), _MOST_ALONE)


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


def size_that_fits(
    choices: Mapping[int, EngineChoice], num_members: int, num_steps: int
) -> int | None:
    """Returns the size of a program that was made for more members and trains these few sooner
    than one of their own, or None. Its empty slots are computed for nothing."""
    for size, choice in sorted(choices.items()):
        if size <= num_members or choice.engine not in ("compiled", "lowered"):
            continue
        # A compiled program is held against the traced one that these would have.
        others = [
            seconds / size * num_members
            for name, seconds in choice.seconds.items()
            if name not in ("compiled", choice.engine)
        ]
        is_sooner = choice.seconds[choice.engine] < min(others, default=math.inf)
        is_made_anew = choice.engine == "lowered" and pays_to_compact(
            choice, size, num_members, num_steps
        )
        if is_sooner and not is_made_anew:
            return size
    return None


def pays_to_compact(choice: EngineChoice, num_slots: int, num_members: int, num_steps: int) -> bool:
    """Checks whether tracing a program for these members alone takes less time than computing the
    empty slots of the one that there is, for so many steps."""
    seconds = choice.seconds.get("lowered")
    if seconds is None:
        return True
    saved = seconds / choice.num_members * num_slots * (1.0 - _share(num_members, num_slots))
    return saved * num_steps > _WORTH_TRACING * processor_slowness()


def _share(num_members: int, num_slots: int) -> float:
    """The time of a traced step of fewer members as a share of one with all slots in use: half of
    it is assumed to be the same for any number, between a device bound by launches and one bound
    by arithmetic."""
    return (1.0 + num_members / num_slots) / 2


def is_loop_sooner(choice: EngineChoice, num_members: int) -> bool:
    """Checks whether so few of the members for which an engine was chosen train sooner one by one.
    A compiled program keeps its size."""
    if choice.engine in ("loop", "each") or "loop" not in choice.seconds:
        return False
    share = 1.0 if choice.engine == "compiled" else _share(num_members, choice.num_members)
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
        f"{name}: {reason}" for name, reason in choice.refused.items() if name != "compiled"
    )
    return (
        f"members are trained one after the other ({times} a "
        f"step{'; ' if reasons else ''}{reasons})"
    )
