"""The worker processes that make batches, in the order of their keys.

Every worker has one connection to the training process and no lock in common with anyone, so that
one that is killed at any moment leaves nothing locked. docs/decisions/ring.md says why torch's
DataLoader is not enough.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import queue
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NamedTuple

import torch

from volano.data.feed.fetch import Fault, Fetcher
from volano.data.feed.slots import Slots, SlotWriter, map_slots
from volano.data.order import Key
from volano.device.start_processes import (
    begin_as_child,
    end_processes,
    how_it_ended,
    pickled,
    start_method,
)
from volano.errors import DataError, VolanoError
from volano.task import Batch

# A worker that is asked to end does so at once; one that is stuck in the kernel gets stronger
# signals.
_PATIENCE_SECONDS = 2.0
# A worker without an answer is named after so long; a run that was asked to stop waits no longer
# than this for a batch.
_STANDS_STILL_SECONDS, _STOPPING_SECONDS, _LOOK_SECONDS = 30.0, 5.0, 0.5


class Made(NamedTuple):
    """The result of a worker for a key: the batch as ``SlotWriter.packed`` left it, its slot or
    None, the faults found, and the seconds of its making. ``error`` is the error instead of a
    batch."""

    batch: Batch
    slot: int | None
    faults: list[Fault]
    seconds: float
    error: VolanoError | None = None


class _BatchJob(NamedTuple):
    key: Key
    slot: int | None


class _Given(NamedTuple):
    """A job as the training process keeps it: with the slots among which its slot is."""

    job: _BatchJob
    slots: Slots | None

    def free(self) -> None:
        """Marks the slot as free of writers."""
        if self.slots is not None and self.job.slot is not None:
            self.slots.release(self.job.slot, None)


class Workers:
    """A number of worker processes around one fetcher. A worker that dies is replaced once; a
    second death is an error.

    Args:
        fetcher: makes the batches; the processes are forked with it, so that nothing need be
            pickled.
        num: number of processes.
        ahead: number of keys that are handed out before the first of them is wanted.
        on_notice: called when a worker is replaced.
        patience: seconds within which a batch must come; None waits as long as it takes.
        is_stopping: whether the run was asked to stop: a worker that stands still does not hold it.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        num: int,
        ahead: int,
        on_notice: Callable[[str], None],
        patience: float | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._fetcher = fetcher
        self._is_stopping = is_stopping
        self._num = num
        self._ahead = ahead
        self._patience = patience
        self._on_notice = on_notice
        self._was_replaced = False
        self._slots: Slots | None = None
        self._context = multiprocessing.get_context(start_method())
        if start_method() != "fork":
            check_pickles(fetcher)
        self._workers: list[_Worker] = []
        try:
            for _ in range(num):
                self._workers.append(self._started())
        except BaseException:
            self.close()
            raise

    def made(self, keys: Iterable[Key]) -> Generator[tuple[Made, Slots | None], None, None]:
        """Yields one result a key, in the order of the keys, and the slots among which its slot is.

        Raises:
            DataError: a second worker died, or one stands still while the run is asked to stop.
        """
        jobs = enumerate(keys)
        waiting: deque[int] = deque()
        while True:
            while len(waiting) < self._ahead and (job := next(jobs, None)) is not None:
                number, key = job
                # In turn: each worker answers in order, so the results need no sorting.
                place = number % len(self._workers)
                self._hand_out(place, key)
                waiting.append(place)
            if not waiting:
                return
            yield self._received(waiting.popleft())

    def use(self, slots: Slots) -> None:
        """Gives the workers new memory for the batches from the next key on."""
        self._slots = slots
        for worker in self._workers:
            worker.give(slots)

    def close(self) -> None:
        """Ends the processes."""
        _end(self._workers)
        self._workers = []

    def _hand_out(self, place: int, key: Key) -> None:
        slot = None if self._slots is None else self._slots.acquire()
        self._workers[place].send(_Given(_BatchJob(key, slot), self._slots))

    def _received(self, place: int) -> tuple[Made, Slots | None]:
        while True:
            worker = self._workers[place]
            try:
                made = worker.receive(self._patience, self._look_at)
            except _DeadError as death:
                self._replace(place, str(death))
                continue
            given = worker.jobs.popleft()
            if made.slot is None:
                given.free()
            return made, given.slots

    def _look_at(self, worker: _Worker, seconds: float) -> None:
        """Looks at a worker that was waited for so long."""
        what = (
            f"a worker process (pid {worker.pid}) has stood still for {seconds:.0f} s over a batch "
            f"of examples {_some(worker.jobs[0].job.key)}"
        )
        if seconds >= _STANDS_STILL_SECONDS and worker.named is not worker.jobs[0]:
            worker.named = worker.jobs[0]
            self._on_notice(f"{what}; it is waited for")
        if seconds >= _STOPPING_SECONDS and self._is_stopping():
            raise DataError(
                f"A run that is asked to stop must get its batch within {_STOPPING_SECONDS:.0f} s",
                got=what,
            )

    def _replace(self, place: int, reason: str) -> None:
        dead = self._workers[place]
        text = (
            f"a worker process {reason} while it made a batch of examples "
            f"{_some(dead.jobs[0].job.key)}"
        )
        if self._was_replaced:
            raise DataError(
                "A worker process that dies is replaced once; then the run stops",
                got=text,
                remedy="SIGKILL often means that memory ran out: pin fewer `workers`, or 0 to "
                "see what happens",
            )
        _end([dead])
        self._was_replaced = True
        self._on_notice(f"{text}; it was replaced, and nothing is lost")
        new = self._workers[place] = self._started()
        if self._slots is not None:
            new.give(self._slots)
        # A batch is a pure function of its key: made again it is the same.
        for given in dead.jobs:
            given.free()
            self._hand_out(place, given.job.key)

    def _started(self) -> _Worker:
        try:
            return _Worker(
                self._context, self._fetcher, [worker.connection for worker in self._workers]
            )
        except OSError as error:
            raise DataError(
                "The system must be able to start the plan's worker processes",
                got=f"{error} at one of {self._num}",
                remedy="Pin fewer `workers`",
            ) from error


class _DeadError(Exception):
    """The death of a worker; the text says how it ended."""


class _Worker:
    """A process, and its jobs that are not yet answered."""

    def __init__(self, context: Any, fetcher: Fetcher, others: list[Connection]) -> None:
        self.jobs: deque[_Given] = deque()
        self.named: _Given | None = None  # over which it was said to stand still
        self._crashes = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        self.connection, there = context.Pipe()
        is_forked = context.get_start_method() == "fork"
        # A forked process inherits both ends of every open connection, and closes those that are
        # not its own.
        ends = [self.connection, *others] if is_forked else []
        crashes = self._crashes.fileno() if is_forked else None
        self._process = context.Process(
            target=_work,
            args=(there, fetcher, ends, crashes, os.getpid()),
            name="volano-worker",
            daemon=True,
        )
        try:
            self._process.start()
        except OSError:
            self.connection.close()
            self._crashes.close()
            raise
        finally:
            there.close()

    def send(self, given: _Given) -> None:
        """Hands a job out. A dead worker is noticed when its answer is wanted."""
        self.jobs.append(given)
        with contextlib.suppress(OSError):
            self.connection.send(given.job)

    def give(self, slots: Slots) -> None:
        """Hands slots over."""
        assert slots.file is not None
        with contextlib.suppress(OSError):
            self.connection.send((slots.num, slots.num_bytes))
            send_handle(self.connection, slots.file, self._process.pid)

    @property
    def pid(self) -> int | None:
        """The id of the process."""
        return self._process.pid

    def receive(self, patience: float | None, look: Callable[[_Worker, float], None]) -> Made:
        """Returns the answer to the oldest job; tells ``look`` how long it has waited.

        Raises:
            _DeadError: the worker is dead.
            DataError: no answer came in ``patience`` seconds.
        """
        start = time.monotonic()
        while not wait([self.connection, self._process.sentinel], _LOOK_SECONDS):
            seconds = time.monotonic() - start
            if patience is not None and seconds >= patience:
                raise DataError(
                    f"A worker process must make a batch within {patience:.0f} s", got="none"
                )
            look(self, seconds)
        try:
            # Unpickling is safe: the answer comes from a process that this one started, over a
            # private connection.
            answer = self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            answer = None
        if answer is None:
            raise _DeadError(self._how_it_ended())
        if isinstance(answer, Made):
            return answer
        raise _DeadError(f"(pid {self._process.pid}) ended itself:\n{answer}")

    def ended(self) -> Any | None:
        """Asks the process to end, and returns it; None if it has ended before."""
        if self._crashes.closed:
            return None
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.connection.close()
        self._crashes.close()
        return self._process

    def _how_it_ended(self) -> str:
        how = how_it_ended(self._process, _PATIENCE_SECONDS)
        self._crashes.seek(0)
        stack = self._crashes.read().decode(errors="replace").strip()
        return f"(pid {self._process.pid}) {how}" + (f":\n{stack}\n" if stack else "")


def _end(workers: list[_Worker]) -> None:
    """Ends workers, and those that died for good."""
    processes = [worker.ended() for worker in workers]
    end_processes([process for process in processes if process is not None], _PATIENCE_SECONDS)


# ---- in the worker


def _work(
    there: Connection, fetcher: Fetcher, ends: list[Connection], crashes: int | None, parent: int
) -> None:
    begin_as_child(ends)  # the step in flight still needs its batch
    # Torchrun signals a rank's whole group; it needs us to the end.
    with contextlib.suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    if crashes is not None:
        # a library may have put its own handlers over faulthandler's, if it was enabled (Ray does)
        faulthandler.disable()
        faulthandler.enable(crashes)  # the stack of a segmentation fault
    torch.set_num_threads(1)  # the cores are for the training and for other workers
    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(there, jobs, parent), daemon=True).start()
    slots = None
    while True:
        job = jobs.get()
        if not isinstance(job, _BatchJob):
            slots = torch.from_numpy(job)
            continue
        try:
            _send(there, _made(fetcher, job, slots))
        except BrokenPipeError:
            os._exit(0)  # the training process is gone
        except BaseException:  # sys.exit in the user's code, or lack of memory: report it, then end
            with contextlib.suppress(OSError):
                there.send(traceback.format_exc().strip())
            raise


def _read(there: Connection, jobs: queue.SimpleQueue[Any], parent: int) -> None:
    # This thread always reads, so that the training process never waits to hand a job out; and it
    # notices first that the training process is gone, even in the middle of a batch.
    try:
        while True:
            while not there.poll(5.0):
                if os.getppid() != parent:
                    os._exit(0)
            message = there.recv()
            if message is None:
                os._exit(0)
            if not isinstance(message, _BatchJob):
                file = recv_handle(there)
                message = map_slots(file, *message)
                os.close(file)
            jobs.put(message)
    except (EOFError, OSError):
        os._exit(0)


def _made(fetcher: Fetcher, job: _BatchJob, slots: torch.Tensor | None) -> Made:
    start = time.perf_counter()
    writer = None if slots is None or job.slot is None else SlotWriter(slots[job.slot])
    try:
        batch, faults = fetcher(job.key, writer)
    except VolanoError as error:
        return Made(None, None, [], time.perf_counter() - start, error)
    packed = batch if writer is None else writer.packed(batch)
    return Made(packed, None if writer is None else job.slot, faults, time.perf_counter() - start)


def _send(there: Connection, made: Made) -> None:
    try:
        content = pickled(made)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an object's own pickling raises
        content = pickled(
            made._replace(batch=None, slot=None, error=_unsendable(made.batch, error))
        )
    there.send_bytes(content)


def _unsendable(batch: Batch, error: Exception) -> DataError:
    for path, leaf in _others(batch, "batch"):
        try:
            pickled(leaf)
        except Exception as its_own:  # noqa: BLE001 - as above
            found = f"{path}, a {type(leaf).__name__}: {its_own}"
            break
    else:
        found = f"{type(batch).__name__}: {error}"
    return DataError(
        "A worker process's batch must be picklable, to be sent to the training process",
        got=found,
        remedy="Leave it out of the examples or the batch, or pin `workers` to 0",
    )


def _others(batch: Batch, path: str) -> Generator[tuple[str, Any], None, None]:
    if isinstance(batch, dict):
        for name, value in batch.items():
            yield from _others(value, f"{path}[{name!r}]")
    elif type(batch) in (tuple, list):
        for number, value in enumerate(batch):
            yield from _others(value, f"{path}[{number}]")
    else:
        yield path, batch


# ---- shared


def check_pickles(fetcher: Fetcher) -> None:
    """Raises DataError if something that worker processes need cannot be pickled for them."""
    for name, value in fetcher.parts.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            raise DataError(
                f"On this system worker processes are started afresh, and the task's {name} is "
                "pickled for them",
                got=f"{type(value).__name__}: {error}",
                remedy="Define it at the top of an importable module, or pin `workers` to 0",
            ) from error


def _some(key: Key) -> str:
    return ", ".join(map(str, key.indices[:8].tolist())) + (", ..." if len(key.indices) > 8 else "")
