"""Revises the number of steps of a run once, early, if its steps take another time than thought.

The schedule is by progress, so that a run of another length from a stated step on is an experiment
like any other: ``run.json`` holds the step and the new length, and a resumed run takes both from
there. What the run began with (``task.json``) stays as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from volano.record.run_folder import RunFolder
from volano.training.observe import Observer
from volano.training.session import Session

# The first step allocates and loads; if seconds decide, two more are timed at least.
_NUM_WARM_UP_STEPS, _LEAST_STEPS = 1, 3


@dataclass(frozen=True, kw_only=True)
class LengthRule:
    """The rule by which the length of a run is revised.

    Attributes:
        after_steps, after_seconds: the number of steps, and the seconds of steps, at the earlier of
            which it is looked at, after three steps if seconds decide; before both, but not before
            half of the seconds, if the time is not enough for so many steps.
        num_steps: ``(step, seconds of a step) -> number of steps`` of the whole run.
    """

    after_steps: int
    after_seconds: float
    num_steps: Callable[[int, float], int]


class LengthRevision:
    """The one revision of a run's length: decided by a rule, or taken from the run's folder.

    Args:
        session: the session of the run.
        folder: the folder of the run; what it has recorded goes before the rule.
        observer: the observer that hears of a revision.
        rule: the rule; None only repeats what is recorded.
        recorded: the revision of a resumed run, as ``run.json`` holds it.
    """

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        observer: Observer,
        rule: LengthRule | None,
        recorded: dict[str, Any] | None = None,
    ) -> None:
        self._session, self._folder, self._observer = session, folder, observer
        with folder.as_written():
            taken = None if recorded is None else (recorded["step"], recorded["num_steps"])
        self._recorded = taken
        self._rule = rule if recorded is None else None
        self._num_made, self._seconds = 0, 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out the time since the last step: an evaluation is no step."""
        self._mark = time.perf_counter()

    def take_up(self) -> None:
        """Repeats a recorded revision that lies behind the session's step, or at it."""
        if self._recorded is not None and self._session.step >= self._recorded[0]:
            self._session.set_num_steps(self._recorded[1])
            self._recorded = None

    def look(self) -> None:
        """Revises the session's number of steps after a step, if the time for it has come."""
        self.take_up()
        if self._rule is not None:
            self._time(self._rule)

    def _time(self, rule: LengthRule) -> None:
        self._num_made += 1
        now = time.perf_counter()
        if self._num_made > _NUM_WARM_UP_STEPS:
            self._seconds += now - self._mark
        self._mark = now
        num_timed = self._num_made - _NUM_WARM_UP_STEPS
        is_long = self._num_made >= _LEAST_STEPS and self._seconds >= rule.after_seconds
        step, before = self._session.step, self._session.task.num_steps
        if num_timed < 1 or step >= before:
            return
        is_due = is_long or self._num_made >= rule.after_steps
        if not is_due and (
            self._seconds < rule.after_seconds / 2
            or rule.num_steps(step, self._seconds / num_timed) > rule.after_steps
        ):
            return
        self._rule = None
        self._session.device.synchronize()
        self._seconds += time.perf_counter() - now
        num_steps = max(step + 1, rule.num_steps(step, self._seconds / num_timed))
        if num_steps != before:
            self._revise(step, num_steps, self._seconds / num_timed)

    def _revise(self, step: int, num_steps: int, seconds: float) -> None:
        before = self._session.task.num_steps
        # Before the next step: a run that is killed after it goes on in the same way.
        record: dict[str, float] = {"step": step, "num_steps": num_steps, "begun_with": before}
        record["seconds_a_step"] = round(seconds, 6)
        self._folder.update_run(num_steps=num_steps, revision=record)
        self._session.set_num_steps(num_steps)
        self._observer.on_length(num_steps)
        self._observer.on_notice(
            f"{num_steps:,} steps instead of {before:,}: what the time left is enough for, at "
            f"{seconds * 1e3:.3g} ms a step as timed up to step {step}"
        )
