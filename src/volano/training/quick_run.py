"""A training without a folder: to find out what a task comes to before a run is made of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from torch import nn

from volano.errors import NumericsError
from volano.plan import Plan
from volano.task import Task
from volano.training.throwaway import throwaway_session


@dataclass(frozen=True, kw_only=True)
class QuickRun:
    """The result of a quick run of a task.

    Attributes:
        model: the model with the final weights (the average if there is one), on the plan's device,
            in evaluation mode.
        metrics: the metrics of the validation set, by the names that the objective gives them, and
            ``loss``.
        seconds: the seconds that it took.
    """

    model: nn.Module = field(repr=False)
    metrics: dict[str, float]
    seconds: float


def run_trial(task: Task, plan: Plan) -> QuickRun:
    """Trains a task to its end and evaluates it once. Nothing is logged or saved; Ctrl-C ends it.

    The numbers are those of ``run_task``. Random state and settings are put back.

    Raises:
        VolanoError: as its subclasses say.
    """
    start = time.perf_counter()
    with throwaway_session(task, plan) as session:
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
            model=session.gathered().eval(), metrics=metrics, seconds=time.perf_counter() - start
        )


def _not_finite(step: int, loss: float) -> NumericsError:
    return NumericsError(
        f"Loss and gradient of a trial must be finite numbers; at step {step} they were not",
        got=f"loss {loss:.6g}",
        remedy="Take a smaller learning rate",
    )
