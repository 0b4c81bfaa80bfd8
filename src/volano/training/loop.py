"""The loop, on one page."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from volano.errors import DataError
from volano.record.run_folder import RunFolder
from volano.task import Batch
from volano.training.checkpoints.saver import Saver
from volano.training.distributed.rank_watch import RankWatch
from volano.training.evaluate import read_scalars
from volano.training.health.data_stalls import DataStalls
from volano.training.health.length_revision import LengthRevision
from volano.training.health.loss_spikes import SpikeFinder
from volano.training.health.nonfinite_policy import NumericsPolicy
from volano.training.observe import Observer
from volano.training.prefix.training_prefix import announced
from volano.training.safety import Safety
from volano.training.session import Session
from volano.training.signals import StopRequest
from volano.training.step import StepResult

# Reading a loss waits for the device: every hundredth step, or thirty times in a short run.
_LOGS_PER_RUN, _MOST_STEPS_PER_LOG = 30, 100


@dataclass(kw_only=True)
class TrainingLoop:
    """The loop of a run, and what stands beside its steps.

    Attributes:
        session: the model, its optimizer and its feed.
        folder: the run's, which takes checkpoints.
        observer: hears of it.
        log: collects what steps say.
        policy: what becomes of steps whose numbers are not finite.
        safety: when to save.
        revision: the one change of the run's length.
        watch: names ranks that stand still.
    """

    session: Session
    folder: RunFolder
    observer: Observer
    log: TrainingLog
    policy: NumericsPolicy
    safety: Safety
    revision: LengthRevision
    watch: RankWatch

    def run(self, stop: StopRequest) -> str:
        """Trains from ``session.step`` to the end, or until asked to stop: ``"finished"`` or
        ``"stopped"``."""
        session, saver = self.session, self._saver()
        # A rank that stopped or saved alone would leave the others waiting for it.
        agree = session.ranks.agreement()
        self.policy.before_stopping = saver.close
        on_notice = self.observer.on_notice
        stalls = DataStalls(session.task, session.plan, session.device, session.step, on_notice)
        self.revision.take_up()
        self._end_if_waited()  # of a resumed run, which may have been killed right after it
        self.log.num_steps = session.num_steps
        session.feed.is_stopping = lambda: stop.requested
        batches = _until_no_more(saver, session, stop)
        with (
            contextlib.closing(saver),
            contextlib.closing(self.watch),
            session.phase("train"),
            contextlib.closing(batches),  # its workers end, whatever happens
        ):
            for batch in batches:
                self._make_step(batch)
                if self.log.is_due(session.step):
                    record = self.log.read(session, self.policy)
                    self.observer.on_log(record)
                    stalls.look(record)
                self._evaluate_if_due()
                # After the last step the run ends and saves below, once.
                if session.step < session.num_steps:
                    must_stop, is_late = agree(stop.requested, saver.is_late())
                    if must_stop:
                        break
                    if is_late or saver.is_at(session.step):
                        with self._aside("checkpoint"):
                            saver.save()
            agree.finish()
            stalls.finish()
            is_finished = session.step == session.num_steps
            with session.phase("checkpoint"):
                saver.finish(must=not is_finished)
        return "finished" if is_finished else "stopped"

    def _saver(self) -> Saver:
        session = self.session

        def state() -> dict[str, Any]:
            self.folder.check_held()
            if self.folder.put_back():
                self.observer.on_notice(
                    f"the run's folder was removed before step {session.step}: it is made again "
                    "with its descriptions, but without the lines, pictures and other files that "
                    "it held. What needs those, as a tokenizer, ends and is not resumed"
                )
            self.policy.look(session.step)
            own = {"log": self.log.state_dict(), "numerics": self.policy.state_dict()}
            return {**session.state_dict(), **own}

        return Saver(
            self.folder, self.safety, state, self.observer.on_notice,
            synchronize=session.device.synchronize, saved_step=session.step or None,
            ranks=session.ranks,
        )  # fmt: skip

    def _make_step(self, batch: Batch) -> None:
        session = self.session
        self.watch.mark()
        result = session.step_once(batch, session.step)
        session.step += 1
        self.watch.mark()
        if result.is_bad:
            # Rare, so the device may be waited for here.
            self.policy.note_bad_step(session.step, result.loss.item())
        else:
            self.log.add(result)
        self.revision.look()
        self.log.num_steps = session.num_steps

    def _evaluate_if_due(self) -> None:
        session, task = self.session, self.session.task
        at_end = session.step == session.num_steps
        is_due = session.step % session.evaluation_interval == 0 or at_end
        if session.valid_feed is None or not is_due:
            return
        with self._aside("evaluate"):
            metrics = session.evaluate()
            self.observer.on_evaluation({"step": session.step, **named_for_valid(metrics)})
            if session.best is not None:
                session.best.look(session.step, metrics, session.kept_model)
                self._end_if_waited()
            if task.preview is not None:
                self.observer.on_preview({"step": session.step, **session.preview()})

    def _end_if_waited(self) -> None:
        """Ends the run here if its patience is at its end."""
        session, best = self.session, self.session.best
        if best is None or not best.has_waited:
            return
        if session.step < session.num_steps:
            self.observer.on_notice(
                f"ended at step {session.step:,} of {session.num_steps:,}: no smaller valid "
                f"loss since step {best.step:,}"
            )
            session.set_num_steps(session.step)
            self.log.num_steps = session.step
            self.observer.on_length(session.step)

    @contextlib.contextmanager
    def _aside(self, phase: str) -> Iterator[None]:
        """A context for what is no step, and counts in no throughput."""
        with self.session.phase(phase):
            yield
        self.log.restart_clock()
        self.revision.restart_clock()


def _until_no_more(
    saver: Saver, session: Session, stop: StopRequest
) -> Generator[Batch, None, None]:
    """Yields the batches to the end of the run, again from the current step if that end has been
    moved. If the data fails, what was learned so far is saved first, in whole steps; a run that was
    asked to stop needs no more batches."""
    try:
        end = -1
        while end != session.num_steps:
            end = session.num_steps
            with contextlib.closing(session.feed.batches(session.keys())) as batches:
                for batch in announced(batches, session.prefix, session.device):
                    yield batch
                    if session.num_steps != end:
                        break
    except DataError:
        # Other ranks do not know of the error, and cannot save with this one.
        if not session.ranks.are_several:
            if stop.requested:
                return
            with session.phase("checkpoint"):
                saver.finish(must=False)
        raise


class TrainingLog:
    """Collects what steps say and reads it from the device now and then.

    What was collected and not yet read is part of a checkpoint, so that a resumed run logs the same
    means, and so is the window of losses by which spikes are known.
    """

    def __init__(self, num_steps: int) -> None:
        self._every = max(1, min(_MOST_STEPS_PER_LOG, num_steps // _LOGS_PER_RUN))
        self.num_steps = num_steps
        self._pending: list[list[Any]] = []
        self._names = ["loss"]
        self._spikes = SpikeFinder()
        self.restart_clock()

    def add(self, result: StepResult) -> None:
        """Notes a step's scalars without reading them."""
        for name in result.metrics:
            if name not in self._names:
                self._names.append(name)
        # A step without a metric does not count in its mean.
        self._pending.append([result.loss, *(result.metrics.get(name) for name in self._names[1:])])
        self._num_timed += 1

    def is_due(self, step: int) -> bool:
        """Returns whether a line is due after ``step`` steps and there is anything to write."""
        return bool(self._pending) and (step % self._every == 0 or step == self.num_steps)

    def read(self, session: Session, policy: NumericsPolicy) -> dict[str, Any]:
        """The means since the last line, and the throughput; ``"spike": True`` if a step's loss
        was one."""
        # Together, so that the device is waited for once.
        *rows, (num_flagged,) = read_scalars(
            [*self._pending, [session.step_once.guard.num_flagged]]
        )
        # Before the means are used: a raised flag says that some of them are of bad steps.
        policy.judge(session.step, int(num_flagged))
        columns = {
            name: [row[index] for row in rows if index < len(row) and row[index] is not None]
            for index, name in enumerate(self._names)
        }
        means = {name: math.fsum(c) / len(c) for name, c in columns.items() if c}
        seconds = time.perf_counter() - self._start
        waited, session.feed.seconds_waited = session.feed.seconds_waited / len(self._pending), 0.0
        record = {
            "step": session.step,
            "epoch": round(session.step / session.order.steps_per_epoch, 4),
            **means,
            "lr": float(session.optimizer.param_groups[0]["lr"]),
            "examples_per_second": round(self._num_timed * session.task.batch_size / seconds, 1),
            "data_wait_share": round(min(1.0, waited * self._num_timed / seconds), 4),
            "memory_bytes": session.device.memory().allocated,
        }
        if self._spikes.look([row[0] for row in rows]):
            record["spike"] = True
        self.restart_clock()
        self._pending, self._names = [], ["loss"]
        return record

    def restart_clock(self) -> None:
        """Leaves the time since the last line out of the throughput: an evaluation is no
        training."""
        self._start, self._num_timed = time.perf_counter(), 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the records not yet read, and the losses against which spikes are measured."""
        return {
            "names": [*self._names],
            "pending": read_scalars(self._pending),
            "spikes": self._spikes.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._names, self._pending = state["names"] or ["loss"], state["pending"]
        self._spikes.load_state_dict(state.get("spikes", []))


def named_for_valid(metrics: dict[str, float]) -> dict[str, float]:
    """Returns the metrics of an evaluation under the names of the figures of a run."""
    return {f"valid_{name}": value for name, value in metrics.items()}
