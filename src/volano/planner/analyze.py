"""Compares predictions with measurements: the chosen plan is run for some steps as the run would
run it."""

from __future__ import annotations

import dataclasses
from typing import Any

from volano.device import Device
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
    device = Device(plan.device)
    device.reset_peak_memory()
    time_of = measure_step_time(task, plan, seconds=_SECONDS, is_later=True)
    actual: dict[str, Any] = {"step": time_of.step, "startup": time_of.startup}
    if explanation.time is not None:
        actual["step_error"] = explanation.time.step / time_of.step - 1.0
    notices, peak = explanation.notices, None
    if not plan.compile:
        memory = measure(task, plan)
        peak, actual["memory"] = memory.peak, dict(memory.categories)
    elif not device.is_cpu:  # what lives inside compiled code its allocator alone can tell
        peak = device.memory().peak
    if peak is None:
        notices = (*notices, "memory of compiled code is not measured")
    else:
        actual["memory_bytes"] = peak
        if explanation.memory is not None:
            actual["memory_error"] = explanation.memory.peak / peak - 1.0
    return dataclasses.replace(explanation, actual=actual, notices=notices)
