"""The trainings of which nothing is kept: they show what a task or a plan comes to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.errors import NumericsError
from volano.plan import Plan
from volano.task import Task
from volano.training.graphs.compiling import settings_of
from volano.training.session import Session


@contextmanager
def throwaway_settings(
    plan: Plan, on_limit: Callable[[str], None] | None = None
) -> Iterator[Device]:
    """A context in which the plan's settings hold; they and random state are put back.
    ``on_limit``: see ``settings_of``."""
    device = Device(plan.device)
    with random_state_kept(device), settings_of(plan, device, on_limit):
        yield device


@contextmanager
def throwaway_session(
    task: Task, plan: Plan, on_limit: Callable[[str], None] | None = None
) -> Iterator[Session]:
    """A context with a session at its first step; settings and random state are put back."""
    with throwaway_settings(plan, on_limit):
        yield Session(task, plan)


@dataclass(frozen=True, kw_only=True)
class QuickRun:
    """The result of a quick run of a task.

    Attributes:
        model: the model with the final weights (the average if there is one), on the plan's device,
            in evaluation mode.
        metrics: the metrics of the validation set, by the names that the objective gives them, and
            ``loss``.
        seconds: the seconds that it took.
        notices: texts that a person should read.
    """

    model: nn.Module = field(repr=False)
    metrics: dict[str, float]
    seconds: float
    notices: tuple[str, ...] = ()


def run_trial(task: Task, plan: Plan) -> QuickRun:
    """Trains a task to its end and evaluates it once. Nothing is logged or saved; Ctrl-C ends it.

    The numbers are those of ``run_task``. Random state and settings are put back.

    Raises:
        VolanoError: as its subclasses say.
    """
    start, said = time.perf_counter(), dict[str, None]()
    with throwaway_session(task, plan, said.setdefault) as session:
        result = None
        for batch in session.feed.batches(session.order.keys(0, task.num_steps)):
            result = session.step_once(batch, session.step)
            session.step += 1
            if result.is_bad:
                raise _not_finite(session.step, result.loss.item())
        if result is not None and not math.isfinite(last := result.loss.item()):
            raise _not_finite(session.step, last)
        metrics = {} if session.valid_feed is None else session.evaluate()
        return QuickRun(
            model=session.gathered().eval(), metrics=metrics, seconds=time.perf_counter() - start,
            notices=tuple(said),
        )  # fmt: skip


def _not_finite(step: int, loss: float) -> NumericsError:
    return NumericsError(
        f"Loss and gradient of a trial must be finite numbers; at step {step} they were not",
        got=f"loss {loss:.6g}",
        remedy="Take a smaller learning rate",
    )
