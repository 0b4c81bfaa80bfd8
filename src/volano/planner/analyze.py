"""What was predicted beside what is measured: the chosen plan, run for some steps as the run would
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
    """The explanation with ``actual``.

    ``actual`` holds ``step`` and ``startup`` in seconds, with the plan's own feed; ``memory_bytes``
    live at the peak and ``memory`` by category; beside them ``step_error`` and ``memory_error``,
    the share by which the prediction was too high (negative: too low), where there was one.
    """
    plan = explanation.plan
    time_of = measure_step_time(task, plan, seconds=_SECONDS)
    actual: dict[str, Any] = {"step": time_of.step, "startup": time_of.startup}
    if explanation.time is not None:
        actual["step_error"] = explanation.time.step / time_of.step - 1.0
    # What is alive within compiled code nobody can see from outside; on an accelerator its
    # allocator says it.
    notices = explanation.notices
    if plan.compile:
        notices = (*notices, "memory of compiled code is not measured")
    else:
        memory = measure(task, plan)
        actual |= {"memory_bytes": memory.peak, "memory": dict(memory.categories)}
        if explanation.memory is not None:
            actual["memory_error"] = explanation.memory.peak / memory.peak - 1.0
    return dataclasses.replace(explanation, actual=actual, notices=notices)
