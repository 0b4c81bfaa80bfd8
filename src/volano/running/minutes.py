"""Turns the minutes of a task of one's own into optimizer steps: once, before the first one."""

from __future__ import annotations

import dataclasses

from volano.planner import PlanRequest, PlanResult
from volano.record.format import count_text
from volano.record.run_folder import RunFolder, revisions_of
from volano.running.busy_cores import beside_others
from volano.running.fit_time import TrainingSize, fit_time
from volano.running.time_limit import TimeLimit
from volano.task import Duration, Task
from volano.training import LengthRule

_LEAST_PROBE_STEPS = 1000


def is_in_minutes(task: Task) -> bool:
    """Returns whether a task's duration is a time, which is not steps yet."""
    assert isinstance(task.duration, Duration)
    return task.duration.unit == "min"


def with_probe_steps(task: Task, request: PlanRequest) -> tuple[Task, PlanRequest]:
    """Returns a task of some number of steps and the request for a plan of a run of its minutes; as
    they are if its duration is no time."""
    assert isinstance(task.duration, Duration)
    if not is_in_minutes(task):
        return task, request
    probe = dataclasses.replace(task, duration=f"{max(_LEAST_PROBE_STEPS, task.steps_per_epoch)}st")
    return probe, dataclasses.replace(request, seconds=60 * task.duration.amount)


def fit_minutes(
    task: Task, request: PlanRequest, *, started: float, world_size: int = 1
) -> tuple[Task, PlanResult, LengthRule | None]:
    """Returns a task of minutes as one of steps, with its plan, and the rule by which the run looks
    at its number of steps again.

    Args:
        task: a task whose duration is a time, which counts from ``started``.
        request: the request for the plan.
        started: the time at which the whole call began, by ``time.perf_counter``.
        world_size: ranks that will train together.
    """
    assert isinstance(task.duration, Duration)
    probe, _ = with_probe_steps(task, request)
    request, said = beside_others(request, world_size)
    limit = TimeLimit(
        planning=request, started=started, seconds=60 * task.duration.amount,
        world_size=world_size, said=said,
    )  # fmt: skip
    interval = None if task.valid is None else task.evaluation_interval
    size = TrainingSize(name=task.name, task=lambda: probe, evaluation_interval=interval)
    found = fit_time(limit, [size], least_evaluation_share=1.0)
    num_steps = found.schedule.num_steps
    reasons = (f"{count_text(num_steps, 'step')}: {found.pace(limit)}", *found.reasons)
    chosen = dataclasses.replace(found.chosen, reasons=(*found.chosen.reasons, *reasons))
    return dataclasses.replace(task, duration=f"{num_steps}st"), chosen, found.length


def with_steps_of(task: Task, folder: RunFolder) -> Task:
    """Returns the task of a run with the steps that its minutes became when it began."""
    if not is_in_minutes(task):
        return task
    record = folder.read_json("run.json")
    with folder.as_written():
        revisions = revisions_of(record)
        num_steps = revisions[0]["begun_with"] if revisions else record["num_steps"]
        return dataclasses.replace(task, duration=f"{num_steps}st")
