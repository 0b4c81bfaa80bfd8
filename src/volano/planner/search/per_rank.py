"""The share of one of several ranks on a machine, for timing it alone."""

from __future__ import annotations

import dataclasses

from volano.device import Device, num_cores
from volano.plan import Plan
from volano.task import Task


def share_of_threads(world_size: int) -> int:
    """Returns the threads of each of several ranks on this machine's cores."""
    return max(1, num_cores() // world_size)


def share_of_rank(task: Task, plan: Plan, world_size: int) -> tuple[Task, Plan]:
    """Returns task and plan with which one process does what each of several ranks will do in a
    step."""
    if world_size == 1:
        return task, plan
    if Device(plan.device).is_cpu and plan.threads is None:
        plan = plan.pin(threads=share_of_threads(world_size))
    part = max(1, task.batch_size // world_size)
    # An epoch of smaller batches has more steps; a rank makes as many as the whole task.
    return dataclasses.replace(task, batch_size=part, duration=f"{task.num_steps}st"), plan
