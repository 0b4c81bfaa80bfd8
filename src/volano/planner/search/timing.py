"""Runs candidates on the real device: short timing runs first, more for the leaders, hopeless ones
stopped early."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.errors import VolanoError, reason_of
from volano.plan import Plan
from volano.task import Batch, Task, map_tensors
from volano.training import Session, StepTimer, check_recorded, is_out_of_memory, settings_of

# Seconds of a block of steps: so long that a clock's tick and one wait for the device do not show
# in it.
_BLOCK_SECONDS = 0.03
# After its first timed step a candidate this much slower than the best is stopped: noise is
# smaller.
_HOPELESS = 1.5
# Candidates this near to the best are run again, in turn with it.
_NEAR, _MOST_FINALISTS = 1.12, 3
_FINAL_ROUNDS, _SLICE_SECONDS = 7, 0.08
# Each has a session of its own again, which takes two steps to warm up before one can be timed.
_FINAL_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The result of timing a candidate.

    Attributes:
        plan: the candidate.
        step: median seconds of a step; None if it failed.
        startup: seconds of building, compiling and the first step, beyond a step.
        failure: the first line of the error, or None.
        lack_of_memory: whether it ran out of memory.
        num_steps: number of timed steps.
        is_stopped: whether it was stopped early, as hopeless.
    """

    plan: Plan
    step: float | None
    startup: float = 0.0
    failure: str | None = None
    lack_of_memory: bool = False
    num_steps: int = 0
    is_stopped: bool = False


class HeldAllocator:
    """The host's allocator with a candidate's setting, kept from one timing run to the next.

    If each run gave its memory back, the next would fault it in again, and that would count as its
    own time. Close it after the last run.
    """

    def __init__(self, device: Device) -> None:
        self._device, self._stack = device, contextlib.ExitStack()
        self.value = ""

    def set(self, value: str) -> bool:
        """Sets a value of the knob ``allocator``. Returns True if another was held before."""
        if value == self.value:
            return False
        self.close()
        self._stack.enter_context(self._device.settings(precision="fp32", allocator=value))
        self.value = value
        return True

    def close(self) -> None:
        """Restores everything."""
        self._stack.close()
        self.value = ""


class TimingRun:
    """The timing of a candidate with a session of its own, on copies of the same batches. Nothing
    of it is kept.

    Args:
        task: the task to train.
        plan: the candidate. Its feed is left out, because batches are given.
        batches: batches on the device, the largest first.
        allocator: the allocator that all timing runs of a race share.
    """

    def __init__(
        self, task: Task, plan: Plan, batches: Sequence[Batch], allocator: HeldAllocator
    ) -> None:
        self.plan, self._allocator = plan, allocator
        # What is kept is filled by the first step, so that the second is one of a later epoch.
        self._batches = batches[:1] if plan.prefix == "cached" else batches
        self._device, self._num_steps = Device(plan.device), task.num_steps
        self._num_made = 0
        allocator.set(plan.allocator)
        begun = time.perf_counter()
        with self._settings():
            self._session = Session(task, plan.pin(feed="ring", workers=0))
            self._timer = StepTimer(
                self._make_step, self._device.synchronize, begun=begun, block_seconds=_BLOCK_SECONDS
            )
            self._timer.warm_up()
            check_recorded(self._session.step_once.graph)

    @property
    def step(self) -> float:
        """Returns the median seconds of a step so far."""
        return self._timer.step

    def run(self, seconds: float) -> None:
        """Times blocks of steps for about so many seconds."""
        has_changed = self._allocator.set(self.plan.allocator)
        with self._settings():
            if has_changed:
                self._timer.skip_block()
            self._timer.run(seconds)

    def _make_step(self) -> None:
        # A copy, as from every feed: an objective may write into its batch.
        batch = map_tensors(
            lambda tensor: tensor.clone(), self._batches[self._num_made % len(self._batches)]
        )
        self._session.step_once(batch, self._num_made % self._num_steps)
        self._num_made += 1

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        # The allocator is held from one timing run to the next.
        plan = self.plan.pin(allocator="system")
        with random_state_kept(self._device), settings_of(plan, self._device):
            yield

    def timing(self, *, is_stopped: bool = False) -> Timing:
        """Returns the figures so far."""
        return Timing(
            plan=self.plan, step=self.step, startup=self._timer.startup,
            num_steps=self._timer.num_steps, is_stopped=is_stopped,
        )  # fmt: skip


class TimingRuns:
    """A runner of one task's candidates that remembers every timing.

    Args:
        task: the task to train; its own model, optimizer and data are not touched, its model is
            made again for each candidate.
        batches: batches on the device, the largest first.
        seconds_left: returns the seconds that timing runs may still take.
        share: the share of a whole batch that they are; the seconds of a step are those of a whole
            one, as if each example cost the same.
    """

    def __init__(
        self,
        task: Task,
        batches: Sequence[Batch],
        seconds_left: Callable[[], float],
        share: float = 1.0,
    ) -> None:
        self._task, self._batches, self._seconds_left = task, batches, seconds_left
        self._share = share
        self._allocator = HeldAllocator(Device("cpu"))
        self.timings: dict[Plan, Timing] = {}

    @property
    def best(self) -> Timing | None:
        """The fastest timing so far, by its step."""
        ran = [timing for timing in self.timings.values() if timing.step is not None]
        return min(ran, key=lambda timing: timing.step or 0.0, default=None)

    def close(self) -> None:
        """Restores the allocator."""
        self._allocator.close()

    def run(self, plan: Plan, *, seconds: float, most_share: float = 1.0) -> Timing:
        """Returns the timing of a candidate, from about so many seconds after its warm-up, and at
        most a share of the task's steps; a candidate that fails has a timing too."""
        if plan not in self.timings:
            timing = self._run(plan, seconds, most_share)
            if timing.step is not None:
                timing = dataclasses.replace(timing, step=timing.step / self._share)
            self.timings[plan] = timing
            # Sessions hold reference cycles (modules and their hooks), and with them the device's
            # memory.
            gc.collect()
        return self.timings[plan]

    def _run(self, plan: Plan, seconds: float, most_share: float) -> Timing:
        try:
            timing_run = TimingRun(self._task, plan, self._batches, self._allocator)
            best = self.best
            if best is not None and best.step is not None:
                hopeless = _HOPELESS * best.step * self._share
                if timing_run.step > hopeless:
                    timing_run.run(0.0)  # once more: the second step may have paid for something
                    if timing_run.step > hopeless:
                        return timing_run.timing(is_stopped=True)
            seconds = min(seconds, most_share * timing_run.step * self._task.num_steps)
            if seconds > timing_run.step / 2:  # for a long step, the second one alone is enough
                timing_run.run(seconds)
            return timing_run.timing()
        except Exception as error:  # noqa: BLE001 - the user's code or a compiler may raise anything
            return _failed(plan, error)

    def final(self, cost: Callable[[Timing], float]) -> None:
        """Runs the leaders again, in turn, so that a slow moment of the machine hits all of them
        alike.

        Args:
            cost: seconds of the whole run under a candidate; those near to the least are the
                leaders. If no time is left for their steps, it is decided by those before.
        """
        ran = sorted(
            (timing for timing in self.timings.values() if timing.step is not None), key=cost
        )
        leaders = [
            timing for timing in ran[:_MOST_FINALISTS] if cost(timing) <= _NEAR * cost(ran[0])
        ]
        steps = _FINAL_STEPS * self._share * sum(timing.step or 0.0 for timing in leaders)
        if len(leaders) < 2 or self._seconds_left() < steps:
            return
        timing_runs: list[TimingRun] = []
        for timing in leaders:
            # It ran before; if the machine is full by now, it is simply left out.
            with contextlib.suppress(Exception):
                timing_runs.append(
                    TimingRun(self._task, timing.plan, self._batches, self._allocator)
                )
        for number in range(_FINAL_ROUNDS):
            if number and self._seconds_left() < sum(
                max(_SLICE_SECONDS, timing_run.step) for timing_run in timing_runs
            ):
                break
            for timing_run in tuple(timing_runs):
                try:
                    timing_run.run(_SLICE_SECONDS)
                except Exception as error:  # noqa: BLE001 - as in a timing run of its own: the candidate fails, not the search
                    self.timings[timing_run.plan] = _failed(timing_run.plan, error)
                    timing_runs.remove(timing_run)
        for timing_run in timing_runs:
            timing = self.timings[timing_run.plan]
            new = timing_run.timing()
            self.timings[timing_run.plan] = Timing(
                plan=timing.plan,
                step=new.step,
                startup=timing.startup,
                num_steps=timing.num_steps + new.num_steps,
            )
        timing_runs.clear()
        gc.collect()


def _failed(plan: Plan, error: Exception) -> Timing:
    reason = str(error).splitlines()[0] if isinstance(error, VolanoError) else reason_of(error)
    return Timing(plan=plan, step=None, failure=reason, lack_of_memory=is_out_of_memory(error))
