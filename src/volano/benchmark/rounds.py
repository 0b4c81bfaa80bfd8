"""Times several sides in turn, and says how much faster one is than another.

Machines are shared and drift, so that sides are compared block by block, never one after the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_BLOCK_SECONDS = 1.0
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 12


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
    sides: Mapping[str, Callable[[int], object]],
    *,
    deadline: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Returns the seconds of a step of each side in each round.

    A round is a block of about a second of each side; every other round goes through them
    backwards. There are three rounds at least, also after the deadline.

    Args:
        sides: name -> a function that makes so many steps and waits for the device.
        deadline: the time, by the clock, after which no round begins.
        clock: seconds.
    """
    counts = {}
    for name, run in sides.items():
        run(2)  # warms up
        counts[name] = max(1, round(_BLOCK_SECONDS / max(_seconds(run, 1, clock), 1e-6)))
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


def _seconds(run: Callable[[int], object], count: int, clock: Callable[[], float]) -> float:
    start = clock()
    run(count)
    return clock() - start
