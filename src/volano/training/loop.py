"""The loop, on one page."""

from __future__ import annotations

import math
import time
from typing import Any

from volano.errors import CheckpointError, NumericsError, ObjectiveError
from volano.training.checkpoint import save_checkpoint
from volano.training.evaluate import read_scalars
from volano.training.folder import RunFolder
from volano.training.observe import Observer
from volano.training.session import Session
from volano.training.signals import StopRequest
from volano.training.step import StepResult

# Reading a loss waits for the device: every hundredth step, or thirty times in a short run.
_LOGS_PER_RUN, _MOST_STEPS_PER_LOG = 30, 100
# A save happens at most this often, and costs at most this share of the time.
_CHECKPOINT_SECONDS, _CHECKPOINT_SHARE = 60.0, 0.02


def run_loop(session: Session, folder: RunFolder, observer: Observer, stop: StopRequest, log: Log) -> str:
    """Trains from ``session.step`` to the end, or until asked to stop: ``"finished"`` or ``"stopped"``."""
    task, num_steps = session.task, session.task.num_steps
    saver = _Saver(session, folder, observer, log)
    batches = session.feed.batches(session.order.keys(session.step, num_steps))
    with session.phase("train"):
        for batch in batches:
            log.add(session.step_once(batch, session.step))
            session.step += 1
            if log.is_due(session.step):
                observer.on_log(log.read(session))
            if session.valid_feed is not None and (
                session.step % task.evaluation_interval == 0 or session.step == num_steps
            ):
                with session.phase("evaluate"):
                    observer.on_evaluation({"step": session.step, **_named(session.evaluate())})
                    if task.preview is not None:
                        observer.on_preview({"step": session.step, **session.preview()})
                log.restart_clock()
            if session.step < num_steps:
                if stop.requested:
                    break
                if saver.is_due():
                    saver.save()
    is_finished = session.step == num_steps
    saver.save(must=not is_finished)
    return "finished" if is_finished else "stopped"


class Log:
    """Collects what steps say and reads it from the device now and then.

    What was collected and not yet read is part of a checkpoint, so that a resumed run logs the same means.
    """

    def __init__(self, num_steps: int) -> None:
        self._every = max(1, min(_MOST_STEPS_PER_LOG, num_steps // _LOGS_PER_RUN))
        self._num_steps = num_steps
        self._pending: list[list[Any]] = []
        self._names: list[str] = []
        self.restart_clock()

    def add(self, result: StepResult) -> None:
        """Notes a step's scalars without reading them."""
        if not self._pending:
            self._names = ["loss", *result.metrics]
        try:
            self._pending.append([result.loss, *(result.metrics[name] for name in self._names[1:])])
        except KeyError as error:
            raise ObjectiveError(
                "An objective gives the same metrics at every step",
                got=f"a step without {error}",
                remedy="Give all of them",
            ) from error
        self._num_timed += 1

    def is_due(self, step: int) -> bool:
        """Whether the next line is to be written after ``step`` steps."""
        return step % self._every == 0 or step == self._num_steps

    def read(self, session: Session) -> dict[str, Any]:
        """The means since the last line, and the throughput.

        Raises:
            NumericsError: the loss has become NaN or infinite.
        """
        means = self._means()
        _check_losses([means["loss"]], session.step)
        seconds = time.perf_counter() - self._start
        record = {
            "step": session.step,
            "epoch": round(session.step / session.order.steps_per_epoch, 4),
            **means,
            "lr": float(session.optimizer.param_groups[0]["lr"]),
            "examples_per_second": round(self._num_timed * session.task.batch_size / seconds, 1),
            "memory_bytes": session.device.memory().allocated,
        }
        self.restart_clock()
        self._pending = []
        return record

    def restart_clock(self) -> None:
        """Leaves the time since the last line out of the throughput: an evaluation is no training."""
        self._start, self._num_timed = time.perf_counter(), 0

    def state_dict(self) -> dict[str, Any]:
        """What was collected and not yet read."""
        return {"names": self._names, "pending": read_scalars(self._pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._names, self._pending = state["names"], state["pending"]

    def _means(self) -> dict[str, float]:
        columns = zip(*read_scalars(self._pending), strict=True)
        return {name: math.fsum(column) / len(column) for name, column in zip(self._names, columns, strict=True)}


def _check_losses(losses: list[float], step: int) -> None:
    for loss in losses:
        if not math.isfinite(loss):
            raise NumericsError(
                f"The loss is a finite number; within the last steps before {step + 1} it was not",
                got=loss,
                remedy="Take a smaller learning rate, a clip_norm or a warm-up; what was saved before is finite",
            )


class _Saver:
    """Saves at intervals, and never lets a save that fails end the run."""

    def __init__(self, session: Session, folder: RunFolder, observer: Observer, log: Log) -> None:
        self._session, self._folder, self._observer, self._log = session, folder, observer, log
        self._interval = _CHECKPOINT_SECONDS
        self._last = time.perf_counter()

    def is_due(self) -> bool:
        """Whether the interval has passed."""
        return time.perf_counter() - self._last >= self._interval

    def save(self, *, must: bool = False) -> None:
        """Writes a checkpoint.

        Raises:
            CheckpointError: it could not be written and ``must`` be, because the run stops here. Otherwise the failure
                is announced.
            NumericsError: the loss has become NaN or infinite; such weights are not saved.
        """
        session, start = self._session, time.perf_counter()
        try:
            with session.phase("checkpoint"):
                log = self._log.state_dict()
                _check_losses([row[0] for row in log["pending"]], session.step)
                state = {**session.state_dict(), "log": log}
                save_checkpoint(self._folder.path / "checkpoints", session.step, state)
        except CheckpointError as error:
            if must:
                raise
            self._observer.on_notice(f"not saved at step {session.step}: {error} The run goes on.")
        self._last = time.perf_counter()
        self._interval = max(_CHECKPOINT_SECONDS, (self._last - start) / _CHECKPOINT_SHARE)
        self._log.restart_clock()


def _named(metrics: dict[str, float], prefix: str = "valid_") -> dict[str, float]:
    return {prefix + name: value for name, value in metrics.items()}
