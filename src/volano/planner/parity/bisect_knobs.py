"""Finds the knob of a plan that is at fault: knobs are taken away until the plan passes the
guard."""

from __future__ import annotations

import itertools
from typing import Any

from volano.plan import Plan, knobs_with
from volano.planner.parity.check import check_parity
from volano.planner.parity.reference import Reference
from volano.task import Task

# The most suspect knobs first: those that rewrite the program, then those that run parts of it
# again, then those of its types and its order.
SUSPECTS = knobs_with("suspicion")


def find_fault(task: Task, plan: Plan, reference: Reference, *, most: int = 12) -> tuple[str, ...]:
    """Finds the knobs that make a failing plan fail.

    Args:
        task: the task that is trained.
        plan: the candidate that was rejected.
        reference: the reference with which it was compared.
        most: number of checks that may be spent; each costs about as much as the candidate's.

    Returns:
        The first of :data:`SUSPECTS` without which the plan passes. Two, if it fails only while
        both are set, or if both must go. All that are set, if fewer than three do not explain it or
        ``most`` was reached. None, if eager PyTorch does not pass either, or the plan does.
    """
    return _Inquiry(task, plan, reference, most).result()


class _Inquiry:
    """The checks of plans between the baseline and the one that fails. No plan is checked twice."""

    def __init__(self, task: Task, plan: Plan, reference: Reference, most: int) -> None:
        self._task, self._plan, self._reference, self._left = task, plan, reference, most
        self._baseline: Plan = reference.baseline
        self._set = tuple(name for name in SUSPECTS if name in plan.changes(self._baseline))
        self._verdicts: dict[Plan, bool] = {}

    def result(self) -> tuple[str, ...]:
        """Finds the knobs; see :func:`find_fault`."""
        try:
            if not self._set or not self._passes(self._baseline) or self._passes(self._plan):
                return ()
            for knob in self._set:
                if self._passes(self._without(knob)):
                    return self._alone_or_with_another(knob)
            for pair in itertools.combinations(self._set, 2):
                if self._passes(self._without(*pair)):
                    return pair
        except _SpentError:
            pass
        return self._set

    def _alone_or_with_another(self, knob: str) -> tuple[str, ...]:
        others = [name for name in self._set if name != knob]
        try:
            if not others or not self._passes(self._only(knob)):
                return (knob,)
            for other in others:
                if self._passes(self._without(other)):
                    return (knob, other)
        except _SpentError:
            pass
        return (knob,)

    def _without(self, *knobs: str) -> Plan:
        return self._plan.pin(**{name: getattr(self._baseline, name) for name in knobs})

    def _only(self, knob: str) -> Plan:
        pins: dict[str, Any] = {knob: getattr(self._plan, knob)}
        return self._baseline.pin(**pins)

    def _passes(self, plan: Plan) -> bool:
        if plan not in self._verdicts:
            if not self._left:
                raise _SpentError
            self._left -= 1
            self._verdicts[plan] = check_parity(self._task, plan, reference=self._reference).passed
        return self._verdicts[plan]


class _SpentError(Exception):
    """The error that no check is left."""
