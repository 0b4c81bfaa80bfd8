"""Turns the minutes of a task of one's own into optimizer steps: once, before the first one."""

from __future__ import annotations

import dataclasses
import time

from volano.planner import PlanRequest, PlanResult, share_of_rank
from volano.record.run_folder import RunFolder
from volano.running.plan_run import choose_plan
from volano.task import Duration, Task
from volano.training import measure_step_time

# Of the minutes, for saving, the report and a pace that drops.
_RESERVE_SHARE, _RESERVE_SECONDS = 0.1, 2.0
_TIMING_SHARE, _MOST_TIMING_SECONDS = 0.02, 5.0
# An example costs an evaluation a forward pass; a step, a backward pass of twice as much too.
_FORWARD_SHARE = 1 / 3
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
    num_steps = max(_LEAST_PROBE_STEPS, task.steps_per_epoch)
    probe = dataclasses.replace(task, duration=f"{num_steps}st")
    return probe, dataclasses.replace(request, seconds=60 * task.duration.amount)


def fit_minutes(
    task: Task, request: PlanRequest, *, started: float, world_size: int = 1
) -> tuple[Task, PlanResult]:
    """Returns a task of minutes as one of steps, with its plan.

    Args:
        task: a task whose duration is a time, which counts from ``started``.
        request: the request for the plan.
        started: the time at which the whole call began, by ``time.perf_counter``.
        world_size: ranks that will train together.
    """
    assert isinstance(task.duration, Duration)
    seconds = 60 * task.duration.amount
    probe, _ = with_probe_steps(task, request)
    end = started + seconds - _RESERVE_SECONDS - _RESERVE_SHARE * seconds
    left = max(1.0, end - time.perf_counter())
    chosen = choose_plan(probe, request, world_size=world_size, seconds=left)
    timing = measure_step_time(
        *share_of_rank(probe, chosen.plan, world_size),
        seconds=min(_MOST_TIMING_SECONDS, _TIMING_SHARE * seconds),
    )
    num_valid = 0 if task.valid is None else len(task.valid)
    num_steps = steps_in(
        end - time.perf_counter() - timing.startup,
        step=timing.step,
        evaluation=timing.step * _FORWARD_SHARE * num_valid / task.batch_size,
        interval=task.evaluation_interval,
    )
    reason = f"{num_steps:,} steps: {1e3 * timing.step:.3g} ms a step, {task.duration.amount:g} min"
    fitted = dataclasses.replace(task, duration=f"{num_steps}st")
    return fitted, dataclasses.replace(chosen, reasons=(*chosen.reasons, reason))


def steps_in(seconds: float, *, step: float, evaluation: float, interval: int) -> int:
    """Returns the optimizer steps that fit into seconds, at least one.

    Args:
        seconds: the time for steps and evaluations.
        step, evaluation: seconds of one.
        interval: steps between two evaluations; there is one more at the end.
    """
    return max(1, int((seconds - evaluation) / (step + evaluation / interval)))


def with_steps_of(task: Task, folder: RunFolder) -> Task:
    """Returns the task of a run with the steps that its minutes became when it began."""
    if not is_in_minutes(task):
        return task
    return dataclasses.replace(task, duration=f"{folder.read_json('run.json')['num_steps']}st")
