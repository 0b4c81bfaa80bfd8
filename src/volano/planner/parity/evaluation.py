"""Tries what a run does beside its steps: an evaluation and a preview, under a plan."""

from __future__ import annotations

import dataclasses

from torch.utils.data import Subset

from volano.errors import reason_of
from volano.plan import Plan
from volano.task import Task
from volano.training import throwaway_session


class EvaluationTrials:
    """The answers whether evaluation and preview run, by the knobs on which that depends.

    A metric may take what plain eager gives it and fail on a narrow type or on another layout;
    the run would end at its first evaluation.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._failures: dict[Plan, str | None] = {}

    def failure(self, plan: Plan) -> str | None:
        """Returns why an evaluation or a preview fails under a plan, and not under plain eager;
        None if it does not."""
        baseline = plan.plain
        knobs = _knobs(plan, baseline)
        if self._task.valid is None or not knobs or self._failure(baseline) is not None:
            return None
        return self._failure(baseline.pin(**knobs))

    def knobs_at_fault(self, plan: Plan) -> tuple[str, ...]:
        """Returns the knobs that fail an evaluation, each alone; empty if none does."""
        baseline = plan.plain
        knobs = _knobs(plan, baseline)
        return tuple(k for k, v in knobs.items() if self.failure(baseline.pin(**{k: v})))

    def _failure(self, plan: Plan) -> str | None:
        if plan not in self._failures:
            self._failures[plan] = _tried(self._task, plan)
        return self._failures[plan]


def _knobs(plan: Plan, baseline: Plan) -> dict[str, str]:
    """Returns the knobs that an evaluation meets, as far as they are not plain eager's."""
    changes = baseline.changes(plan)
    return {k: getattr(plan, k) for k in ("precision", "memory_format") if k in changes}


def _tried(task: Task, plan: Plan) -> str | None:
    few = Subset(task.valid, range(min(len(task.valid), task.batch_size)))
    try:
        with throwaway_session(dataclasses.replace(task, valid=few), plan) as session:
            session.evaluate()
            if task.preview is not None:
                session.preview()
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return reason_of(error)
    return None
