"""Compares predictions with measurements: the chosen plan is run for some steps as the run would
run it."""

from __future__ import annotations

import dataclasses
from typing import Any

from volano.plan.explanation import Explanation
from volano.planner.memory.predict import measure
from volano.task import Task
from volano.training import measure_step_time

_SECONDS = 3.0


def measured_beside(task: Task, explanation: Explanation) -> Explanation:
    """Returns the explanation with ``actual`` filled in.

    ``actual`` holds ``step`` and ``startup`` in seconds, with the plan's own feed; ``memory_bytes``
    live at the peak and ``memory`` by category; also ``step_error`` and ``memory_error``, the share
    by which the prediction was too high (negative: too low), if there was one.
    """
    plan = explanation.plan
    time_of = measure_step_time(task, plan, seconds=_SECONDS, is_later=True)
    actual: dict[str, Any] = {"step": time_of.step, "startup": time_of.startup}
    if explanation.time is not None:
        actual["step_error"] = explanation.time.step / time_of.step - 1.0
    # What lives inside compiled code cannot be seen from outside; an accelerator's allocator
    # reports it.
    notices = explanation.notices
    if plan.compile:
        notices = (*notices, "memory of compiled code is not measured")
    else:
        memory = measure(task, plan)
        actual |= {"memory_bytes": memory.peak, "memory": dict(memory.categories)}
        if explanation.memory is not None:
            actual["memory_error"] = explanation.memory.peak / memory.peak - 1.0
    return dataclasses.replace(explanation, actual=actual, notices=notices)
