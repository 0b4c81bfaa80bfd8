"""The clock of a training loop: charges every moment of it to one part of a step and to one line of
the person's code.

What calls it are hooks (``script/watch/hooks.py``). It knows no torch: times and lines come from
outside. A *step* ends with the step of an optimizer. A *unit* is what lies between two fetches of a
batch; one with a forward pass and without a backward pass is evaluation, and no part of a step.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

# The parts of a step, in the order in which they are shown.
PARTS = ("data", "transfer", "forward", "backward", "optimizer", "read", "rest")
EVALUATION = "evaluation"

# What is told apart inside of what: a read in a forward pass is a read, one in a dataset's code
# belongs to the waiting for data. Lightning, and closures in general, compute inside the optimizer.
_TOLD_APART: dict[str, Collection[str]] = {
    "data": ("transfer",),
    "transfer": (),
    "forward": ("transfer", "backward", "read"),
    EVALUATION: (),
    "backward": ("transfer", "read", "optimizer"),  # a hook may step when a gradient is there
    "optimizer": ("data", "transfer", "forward", EVALUATION, "backward", "read"),
    "read": (),
}
# An optimizer that was not stepped while others were so often is no longer the one that counts.
_STEPS_OF_OTHERS = 8

# A file and a line; between two lines, the first and the last.
CodeLines = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class ObservationLimits:
    """The limits of watching a loop.

    Attributes:
        warmup_steps, warmup_seconds: steps that are left out, the shorter of both.
        steps, seconds: steps that are measured, the shorter of both.
        end_seconds: when to stop at the next step in any case, since the recorder was made.
    """

    warmup_steps: int = 3
    warmup_seconds: float = 3.0
    steps: int = 100
    seconds: float = 8.0
    end_seconds: float = 60.0


@dataclass(slots=True)
class _Unit:
    """The charges between two fetches: (part, place) -> seconds and how often."""

    charges: dict[tuple[str, CodeLines | None], list[float]] = field(default_factory=dict)
    loaders: set[int] = field(default_factory=set)
    has_forward: bool = False
    has_backward: bool = False

    @property
    def is_evaluation(self) -> bool:
        return self.has_forward and not self.has_backward


class StepRecorder:
    """The recorder of the steps of one process; only one thread is watched, first the one that made
    it.

    Args:
        limits: how long.
        clock: seconds.

    Attributes:
        is_complete: whether enough was seen.
        synchronize: called before a part's end is read, if a device computes asynchronously.
        num_steps: steps so far, warm-up included.
        training_loaders: the loaders whose batches were trained on.
    """

    def __init__(
        self, limits: ObservationLimits, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._limits, self._clock = limits, clock
        self._thread = threading.get_ident()
        self._stack: list[tuple[str, CodeLines | None]] = []
        self._last: CodeLines | None = None
        self._units: list[_Unit] = []
        self._unit = _Unit()
        self._reference: int | None = None
        self._steps_of: dict[int, int] = {}
        self._since_reference = 0
        self._started = self._mark = clock()
        self._first_step: float | None = None
        self._window: _Window | None = None
        self._free_step_seconds: float | None = None
        self.training_loaders: set[int] = set()
        self.num_steps = 0
        self.is_active = True
        self.is_complete = False
        self.synchronize: Callable[[], Any] | None = None
        self.can_synchronize: Callable[[], Any] | None = None

    # ---- what the hooks call

    def takes(self, part: str) -> bool:
        """Returns whether a part that begins now is told apart from what it is in."""
        if not self.is_watching():
            return False
        return not self._stack or part in _TOLD_APART[self._stack[-1][0]]

    def is_watching(self) -> bool:
        """Returns whether what this thread does is watched."""
        return self.is_active and threading.get_ident() == self._thread

    def watch_this_thread(self) -> None:
        """Watches the thread that calls, with what it does from now on: the one that trains may not
        be the one that imports torch."""
        if threading.get_ident() != self._thread:
            self._thread = threading.get_ident()
            self._stack, self._units, self._unit = [], [], _Unit()
            self._mark = self._clock()

    def is_in(self, part: str) -> bool:
        """Returns whether the innermost part is this one."""
        return bool(self._stack) and self._stack[-1][0] == part

    def enter(self, part: str, place: CodeLines | None) -> None:
        """Begins a part of a step, for which :meth:`takes` was asked."""
        self._charge_enclosing(self._clock(), place)
        if part == "data" and self._unit.has_forward:
            self._units.append(self._unit)
            self._unit = _Unit()
        self._unit.has_forward |= part in ("forward", EVALUATION)
        self._unit.has_backward |= part == "backward"
        self._stack.append((part, place))
        self._count(part, place)

    def leave(self) -> None:
        """Ends the innermost part."""
        if not self._stack:  # the recorder was stopped inside of it
            return
        if self.synchronize is not None:
            self.synchronize()
        now = self._clock()
        part, place = self._stack.pop()
        self._charge(part, place, now - self._mark)
        self._mark = now
        if not self._stack:
            self._last = place

    def leave_all(self, part: str) -> None:
        """Ends parts up to and including the outermost ``part``; an exception may have left some
        open."""
        names = [name for name, _ in self._stack]
        if part in names:
            for _ in range(len(names) - names.index(part)):
                self.leave()

    def span(self, part: str, started: float, place: CodeLines | None) -> None:
        """Charges what began at ``started`` and ends now, for which :meth:`takes` was asked."""
        now = self._clock()
        if started > self._mark:
            self._charge_enclosing(started, place)
        self._charge(part, place, now - self._mark)
        self._count(part, place)
        self._mark = now
        if not self._stack:
            self._last = place

    def is_late(self) -> bool:
        """Returns whether the time is over after which nothing more is measured."""
        return self._clock() - self._started >= self._limits.end_seconds

    def now(self) -> float:
        """Returns the time of the recorder's clock."""
        return self._clock()

    def read_from(self, loader: int) -> None:
        """Notes which loader the batch came from that is fetched now."""
        self._unit.loaders.add(loader)

    def end_step(self, optimizer: int) -> None:
        """Ends a step, if the optimizer that has stepped is the one by which steps are counted: the
        first that was seen."""
        self._unit.has_backward = True
        if not self._counts(optimizer):
            return
        self.num_steps += 1
        self._close_step()
        self._judge()

    # ---- what came of it

    @property
    def num_optimizers(self) -> int:
        """The number of optimizers that have stepped."""
        return len(self._steps_of)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures of the measured steps: seconds a step by part and place."""
        window = self._window or _Window(self._clock())
        if not self.is_complete:  # the script has come to its end before
            window.close()
        steps = max(1, window.num_steps)
        parts = []
        for (part, place), (seconds, count) in window.charges.items():
            file, line, to_line = place or (None, None, None)
            parts.append(
                {
                    "part": part, "file": file, "line": line, "to_line": to_line,
                    "seconds": seconds / steps, "count": count / steps,
                }
            )  # fmt: skip
        return {
            "num_steps": window.num_steps,
            "num_warmup_steps": self.num_steps - window.num_steps,
            "step_seconds": sum(window.step_seconds) / steps,
            "each_step_seconds": window.step_seconds,
            "free_step_seconds": self._free_step_seconds,
            "evaluation_seconds": window.evaluation_seconds,
            "busy_cores": window.busy_cores,
            "kernel_cores": window.kernel_cores,
            "num_optimizers": self.num_optimizers,
            "parts": parts,
        }

    # ---- charges

    def _charge_enclosing(self, now: float, place: CodeLines | None) -> None:
        seconds, self._mark = now - self._mark, now
        if self._stack:
            self._charge(*self._stack[-1], seconds)
        elif seconds > 0:
            self._charge("rest", _between(self._last, place), seconds)

    def _charge(self, part: str, place: CodeLines | None, seconds: float) -> None:
        self._unit.charges.setdefault((part, place), [0.0, 0])[0] += seconds

    def _count(self, part: str, place: CodeLines | None) -> None:
        self._unit.charges.setdefault((part, place), [0.0, 0])[1] += 1

    # ---- steps

    def _counts(self, optimizer: int) -> bool:
        self._steps_of[optimizer] = self._steps_of.get(optimizer, 0) + 1
        if self._reference is None or self._since_reference >= _STEPS_OF_OTHERS:
            self._reference = optimizer
        is_reference = optimizer == self._reference
        self._since_reference = 0 if is_reference else self._since_reference + 1
        return is_reference

    def _close_step(self) -> None:
        now = self._clock()
        if now > self._mark:
            self._charge("rest", self._last, now - self._mark)
        self._mark = now
        for unit in (*self._units, self._unit):
            if not unit.is_evaluation:
                self.training_loaders |= unit.loaders
        if self._window is not None:
            self._window.add((*self._units, self._unit))
        # What follows the step until the next fetch (a loss that is printed) is training too.
        self._units, self._unit = [], _Unit(has_forward=True, has_backward=True)

    def _judge(self) -> None:
        now, limits = self._clock(), self._limits
        self._first_step = now if self._first_step is None else self._first_step
        is_late = self.is_late()
        if self._window is None:
            is_warm = self.num_steps >= limits.warmup_steps
            if is_warm or now - self._first_step >= limits.warmup_seconds:
                self._window = _Window(now)
            return
        seconds = now - self._window.started
        if self._window.num_steps < limits.steps and seconds < limits.seconds and not is_late:
            return
        self._window.close()
        if self.can_synchronize is not None and self.synchronize is None and not is_late:
            # The host runs ahead of the device: first how long a step takes, then its parts, each
            # of which waits for the device.
            self._free_step_seconds = sum(self._window.step_seconds) / self._window.num_steps
            self.synchronize = self.can_synchronize
            self._window = _Window(now)
        else:
            self.is_complete, self.is_active = True, False


class _Window:
    """The steps that are measured."""

    def __init__(self, now: float) -> None:
        self.started = now
        self.num_steps = 0
        self.evaluation_seconds = 0.0
        self.busy_cores: float | None = None
        self.kernel_cores: float | None = None
        self.charges: dict[tuple[str, CodeLines | None], list[float]] = {}
        self.step_seconds: list[float] = []
        self._clocks = time.perf_counter(), os.times()

    def add(self, units: tuple[_Unit, ...]) -> None:
        """Takes a step."""
        self.num_steps += 1
        seconds_of_step = 0.0
        for unit in units:
            for (part, place), (seconds, count) in unit.charges.items():
                # A model in evaluation mode without gradients is evaluation wherever it is called.
                if unit.is_evaluation or part == EVALUATION:
                    self.evaluation_seconds += seconds
                    continue
                seconds_of_step += seconds
                charge = self.charges.setdefault((part, place), [0.0, 0])
                charge[0] += seconds
                charge[1] += count
        self.step_seconds.append(seconds_of_step)

    def close(self) -> None:
        """Reads how many cores were busy on average, and how many of them in the kernel."""
        (started, before), now = self._clocks, os.times()
        seconds = time.perf_counter() - started
        if seconds > 0:
            self.kernel_cores = (now.system - before.system) / seconds
            self.busy_cores = self.kernel_cores + (now.user - before.user) / seconds


def _between(before: CodeLines | None, after: CodeLines | None) -> CodeLines | None:
    """Returns the lines between two places, of one file if they are."""
    if before is None or after is None:
        return before or after
    if before[0] != after[0]:
        return before
    lines = sorted((before[1], after[1]))
    return before[0], lines[0], lines[1]
