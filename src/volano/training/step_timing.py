"""Measures the time of a task's step under a plan, on throw-away copies."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from volano.plan import Plan
from volano.task import Task
from volano.training.prefix.training_prefix import announced
from volano.training.session import Session
from volano.training.throwaway import throwaway_settings

_MOST_STEPS_IN_BLOCK = 1000


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """The seconds of one step (median), and of what is paid once: building, compiling, the first
    steps' extra."""

    step: float
    startup: float


class StepTimer:
    """Times steps: two that warm up, then blocks of steps, of which the median counts.

    Args:
        make_step: the function that makes the next step.
        synchronize: waits until the device has done it.
        begun: ``time.perf_counter()`` when what makes the steps began to be built.
        block_seconds: about how long a block is, so that a clock's tick and one wait for the device
            do not show in it; with 0 it is one step.

    Attributes:
        num_steps: steps in blocks so far.
    """

    def __init__(
        self,
        make_step: Callable[[], object],
        synchronize: Callable[[], object],
        *,
        begun: float,
        block_seconds: float = 0.0,
    ) -> None:
        self._make_step, self._synchronize = make_step, synchronize
        self._last, self._block_seconds = begun, block_seconds
        self._warm_up: list[float] = []
        self._blocks: list[float] = []
        self.num_steps = 0

    @property
    def step(self) -> float:
        """The median seconds of a step over the blocks; without one, those of the warm-up's last
        step."""
        return statistics.median(self._blocks or self._warm_up[-1:])

    @property
    def startup(self) -> float:
        """The seconds until the warm-up was done, without those of its steps themselves."""
        return max(0.0, sum(self._warm_up) - len(self._warm_up) * self.step)

    def warm_up(self) -> None:
        """Makes the first two steps: the second still allocates what the optimizer keeps, and
        compiles what the first could not know."""
        for _ in range(2):
            self.make_first()

    def make_first(self) -> None:
        """Makes one of the first steps."""
        self._warm_up.append(self._seconds_of(1))

    def skip_block(self) -> None:
        """Makes a block of steps that do not count."""
        self._seconds_of(self._steps_in_block())

    def run(self, seconds: float) -> None:
        """Times blocks for about so many seconds, one at least."""
        self._last = time.perf_counter()
        end = self._last + seconds
        taken = 0.0
        while not taken or self._last + taken <= end:
            count = self._steps_in_block()
            taken = self._seconds_of(count)
            self._blocks.append(taken / count)
            self.num_steps += count

    def _steps_in_block(self) -> int:
        return max(1, min(_MOST_STEPS_IN_BLOCK, round(self._block_seconds / max(self.step, 1e-6))))

    def _seconds_of(self, count: int) -> float:
        for _ in range(count):
            self._make_step()
        self._synchronize()
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def measure_step_time(
    task: Task,
    plan: Plan,
    *,
    seconds: float,
    most_seconds: float = math.inf,
    is_later: bool = False,
    on_limit: Callable[[str], None] | None = None,
) -> StepTime:
    """Runs steps for about ``seconds``, at least one after the warm-up if the task has one.

    Nothing of it is kept. Random state and settings are put back; the data is only read.

    Args:
        task: the task whose steps are timed.
        plan: the plan under which they are made.
        seconds: about how long steps are timed after the warm-up.
        most_seconds: the seconds after which no further step is begun: one of the warm-up then
            stands for all, which is no less than a step takes.
        is_later: whether the steps are those of a later epoch, in which what a frozen prefix
            computes is known: all of them are on the run's first batch.
        on_limit: see ``settings_of``.
    """
    with throwaway_settings(plan, on_limit):
        begun = time.perf_counter()
        session = Session(task, plan)
        keys = session.order.keys(0, task.num_steps)
        is_known = is_later and plan.prefix == "cached"  # from the first step on
        if is_known:
            keys = itertools.repeat(next(keys), task.num_steps)
        batches = announced(session.feed.batches(keys), session.prefix, session.device)

        def make_step() -> None:
            session.step_once(next(batches), session.step)
            session.step += 1

        def is_late() -> bool:
            return time.perf_counter() - begun > most_seconds

        built = time.perf_counter() - begun
        timer = StepTimer(make_step, session.device.synchronize, begun=begun + built)
        with contextlib.suppress(StopIteration):  # the task has no more steps
            timer.make_first()
            if is_known or not is_late():
                timer.make_first()
            if not is_late():
                timer.run(seconds)
        return StepTime(step=timer.step, startup=built + timer.startup)
