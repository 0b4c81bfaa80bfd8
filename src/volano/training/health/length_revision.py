"""Revises the number of steps of a run early, if its steps take another time than thought, and
later, if the machine becomes slower or time is left over.

The schedule is by progress, so that a run of another length from a stated step on is an experiment
like any other: ``run.json`` holds the steps and the new lengths, and a resumed run takes both from
there. What the run began with (``task.json``) stays as it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from volano.record.run_folder import RunFolder, revisions_of
from volano.training.observe import Observer
from volano.training.session import Session

# The first step allocates and loads; if seconds decide, two more are timed at least.
_NUM_WARM_UP_STEPS, _LEAST_STEPS = 1, 3
# A later look is taken after so many steps at least, or, of a run of few, so many times in it.
_LEAST_STEPS_AGAIN, _LOOKS = 5, 20


def _as_it_was(_step: int, num_steps: int, _seconds: float) -> int:
    return num_steps


@dataclass(frozen=True, kw_only=True)
class LengthRule:
    """The rule by which the length of a run is revised.

    Attributes:
        after_steps, after_seconds: the number of steps, and the seconds of steps, at the earlier of
            which it is looked at, after three steps if seconds decide; before both, but not before
            half of the seconds, if the time is not enough for so many steps.
        num_steps: ``(step, seconds of a step) -> number of steps`` of the whole run.
        again_seconds: the seconds of steps after which it is looked at again, from then on; after
            five steps at least, a twentieth of a run of fewer than a hundred.
        later: ``(step, number of steps, seconds of a step) -> number of steps`` of the whole run,
            at each later look.
    """

    after_steps: int
    after_seconds: float
    num_steps: Callable[[int, float], int]
    again_seconds: float = math.inf
    later: Callable[[int, int, float], int] = _as_it_was


class LengthRevision:
    """The revisions of a run's length: decided by a rule, or taken from the run's folder.

    Args:
        session: the session of the run.
        folder: the folder of the run; what it has recorded goes before the rule.
        observer: the observer that hears of a revision.
        rule: the rule; None only repeats what is recorded.
        recorded: ``run.json`` of a resumed run.
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
            self._revisions = revisions_of(recorded or {})
            self._recorded = [
                (int(taken["step"]), int(taken["num_steps"])) for taken in self._revisions
            ]
        self._rule = None if self._recorded else rule
        self._is_first = True
        self._num_made, self._seconds = 0, 0.0
        self._num_before, self._seconds_before = 0, 0.0  # timed since the first look
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out the time since the last step: an evaluation is no step."""
        self._mark = time.perf_counter()

    def take_up(self) -> None:
        """Repeats the recorded revisions that lie behind the session's step, or at it."""
        while self._recorded and self._session.step >= self._recorded[0][0]:
            self._session.set_num_steps(self._recorded.pop(0)[1])

    def look(self) -> None:
        """Revises the session's number of steps after a step, if the time for it has come."""
        self.take_up()
        if self._rule is None:
            return
        if self._is_first:
            self._look_first(self._rule)
        else:
            self._look_again(self._rule)

    def _look_first(self, rule: LengthRule) -> None:
        self._num_made += 1
        now = time.perf_counter()
        if self._num_made > _NUM_WARM_UP_STEPS:
            self._seconds += now - self._mark
        self._mark = now
        num_timed = self._num_made - _NUM_WARM_UP_STEPS
        is_long = self._num_made >= _LEAST_STEPS and self._seconds >= rule.after_seconds
        step, before = self._session.step, self._session.num_steps
        if num_timed < 1 or step >= before:
            return
        is_due = is_long or self._num_made >= rule.after_steps
        if not is_due and (
            self._seconds < rule.after_seconds / 2
            or rule.num_steps(step, self._seconds / num_timed) > rule.after_steps
        ):
            return
        self._is_first = False
        self._session.device.synchronize()
        self._mark = time.perf_counter()
        self._seconds += self._mark - now
        seconds = self._seconds / num_timed
        num_steps = max(step + 1, rule.num_steps(step, seconds))
        self._num_made, self._seconds = 0, 0.0
        if num_steps != before:
            self._revise(step, num_steps, seconds)

    def _look_again(self, rule: LengthRule) -> None:
        now = time.perf_counter()
        self._num_made += 1
        self._seconds += now - self._mark
        self._mark = now
        least = min(_LEAST_STEPS_AGAIN, self._session.num_steps // _LOOKS)
        if self._seconds < rule.again_seconds or self._num_made < least:
            return
        self._num_before += self._num_made
        self._seconds_before += self._seconds
        # Half of it the last steps, half all since the first look: a slow second is not the pace
        # of what is left, and what has become slow for good shows at each look.
        pace = self._seconds_before / self._num_before
        pace = (pace + self._seconds / self._num_made) / 2
        self._num_made, self._seconds = 0, 0.0
        step, before = self._session.step, self._session.num_steps
        if step < before and (num_steps := rule.later(step, before, pace)) != before:
            self._revise(step, max(step + 1, num_steps), pace)

    def _revise(self, step: int, num_steps: int, seconds: float) -> None:
        before = self._session.num_steps
        # Before the next step: a run that is killed after it goes on in the same way.
        record: dict[str, float] = {"step": step, "num_steps": num_steps, "begun_with": before}
        record["seconds_a_step"] = round(seconds, 6)
        self._revisions.append(record)
        self._folder.update_run(num_steps=num_steps, revisions=self._revisions)
        self._session.set_num_steps(num_steps)
        self._observer.on_length(num_steps)
        self._observer.on_notice(
            f"{num_steps:,} steps instead of {before:,}: what the time left is enough for, at "
            f"{seconds * 1e3:.3g} ms a step as timed up to step {step}"
        )
