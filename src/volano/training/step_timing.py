"""How long a step of a task takes under a plan, found out by running some on throw-away copies."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.plan import Plan
from volano.task import Task
from volano.training.run import settings_of
from volano.training.session import Session

_NUM_WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step (median), and of what is paid once: building, compiling, the first steps' extra."""

    step: float
    startup: float


def measure_step_time(task: Task, plan: Plan, *, seconds: float) -> StepTime:
    """Runs steps for about ``seconds``, at least one after the warm-up. Nothing of it is kept.

    Random state and settings are put back; the data is only read.
    """
    device = Device(plan.device)
    with random_state_kept(device), settings_of(plan, device):
        return _measure(task, plan, seconds)


def _measure(task: Task, plan: Plan, seconds: float) -> StepTime:
    start = time.perf_counter()
    session = Session(task, plan, on_notice=lambda _: None)
    times: list[float] = []
    batches = session.feed.batches(session.order.keys(0, task.num_steps))
    last = warm = start
    for number, batch in enumerate(batches):
        session.step_once(batch, session.step)
        session.step += 1
        session.device.synchronize()
        now = time.perf_counter()
        if number < _NUM_WARM_UP:
            warm = now
        else:
            times.append(now - last)
            if now - warm >= seconds:
                break
        last = now
    if not times:  # a run shorter than the warm-up: its last step is all there is to go by
        times = [(time.perf_counter() - start) / max(1, session.step)]
    step = statistics.median(times)
    return StepTime(step=step, startup=max(0.0, time.perf_counter() - start - sum(times) - _NUM_WARM_UP * step))
