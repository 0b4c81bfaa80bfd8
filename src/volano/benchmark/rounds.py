"""Times several sides in turn, and says how much faster one is than another.

Machines are shared and drift, so that sides are compared block by block, never one after the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

_BLOCK_SECONDS = 1.0
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 12


class Side(Protocol):
    """A side that is timed: the steps of a training."""

    def settled(self) -> AbstractContextManager[object]:
        """Returns a context in which its settings hold."""
        ...

    def make(self, count: int) -> object:
        """Makes the next ``count`` steps within that context, and waits for the device."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepGain:
    """The gain of one side over another: the median over the rounds, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, slow: Sequence[float], fast: Sequence[float]) -> StepGain:
        """Returns the gain from seconds of a step, round by round."""
        ratios = [one / other for one, other in zip(slow, fast, strict=True)]
        return cls(median=statistics.median(ratios), least=min(ratios), most=max(ratios))


def take_turns(
    sides: Mapping[str, Side], *, deadline: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Returns the seconds of a step of each side in each round.

    A round is a block of about a second of each side; every other round goes through them
    backwards. There are three rounds at least, also after the deadline. A block begins with a step
    that is not counted: the side before has left memory and caches as suits it.

    Args:
        sides: the sides by name.
        deadline: the time, by the clock, after which no round begins.
        clock: seconds.
    """
    counts = {}
    for name, side in sides.items():
        counts[name] = max(1, round(_BLOCK_SECONDS / max(_seconds(side, 1, clock), 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    longest = 0.0
    for number in range(_MOST_ROUNDS):
        begun = clock()
        if number >= _LEAST_ROUNDS and begun + longest > deadline:
            break
        for name in list(sides)[:: -1 if number % 2 else 1]:
            found[name].append(_seconds(sides[name], counts[name], clock) / counts[name])
        longest = max(longest, clock() - begun)
    return found


def _seconds(side: Side, count: int, clock: Callable[[], float]) -> float:
    with side.settled():
        side.make(1)
        start = clock()
        side.make(count)
        return clock() - start
