"""The workers of a study as processes of this machine: one for each accelerator, or for each share
of the cores.

A process is forked if that is safe, for then closures, and data in memory, go over as they are:
without an accelerator, whose driver does not survive a fork, and with one thread each, for a pool
of OpenMP threads does not either (docs/decisions/workers-of-a-study.md). Elsewhere it is started
again and ``build`` is pickled for it.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from typing import Any

import torch

from volano.device.start_processes import (
    begin_as_child,
    cpu_ticks,
    end_processes,
    how_it_ended,
    pickled,
    start_method,
)
from volano.device.torch_private import load_dynamo
from volano.errors import RunError, UsageError, VolanoError
from volano.study.workers.executor import Executor, Make, answer_of, defect_of, report_in
from volano.study.workers.messages import Assignment, Lost, Report

# A process that was told to end does so at once; one that is stuck in the kernel is signalled more
# loudly.
_PATIENCE_SECONDS = 2.0
# How often a process looks whether the one that started it still runs. The end of the connection
# says so at once, but for copies of it that other forked processes may hold.
_LOOK_SECONDS = 5.0
_STANDS_STILL_SECONDS = 30.0
_CAN_HOLD = hasattr(signal, "pthread_sigmask")


class ProcessPool(Executor):
    """A pool of one process for each of ``makers``, started at once; a process that dies is started
    again with its next assignment.

    Args:
        makers: the makers of the workers; each is called in its process, which is forked with it or
            to which it is pickled.
        is_forked: see :func:`can_fork`.
        on_notice: hears of a worker that stands still.

    Raises:
        UsageError: a worker is to be pickled and cannot be.
        RunError: the system starts no more processes.
    """

    def __init__(
        self, makers: Sequence[Make], *, is_forked: bool,
        on_notice: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._on_notice = on_notice
        self.num_workers = len(makers)
        self._is_forked = is_forked
        self._makers: list[Any] = (
            list(makers) if is_forked else [pickled_for_start(make) for make in makers]
        )
        self._workers: list[_Process | None] = [None] * len(makers)
        # multiprocessing waits for children when an interpreter ends; a driver that was not closed
        # would wait for ever.
        self._at_exit = Finalize(None, _end_all, (self._workers,), exitpriority=10)
        try:
            for worker in range(len(makers)):
                self._start(worker)
        except BaseException:
            self.close()
            raise

    def submit(self, worker: int, assignment: Assignment) -> None:
        process = self._workers[worker]
        if process is None or not process.is_alive():
            process = self._start(worker)
        process.send(assignment)

    def next_finished(self, timeout: float | None = None) -> tuple[int, Report | Lost] | None:
        busy = [
            (number, process)
            for number, process in enumerate(self._workers)
            if process and process.assignment
        ]
        if not busy:
            return None
        ends = [end for _, process in busy for end in (process.connection, process.sentinel)]
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            ready = wait(ends, min(left, _LOOK_SECONDS))
            if ready or left <= _LOOK_SECONDS:
                break
            for number, process in busy:
                if process.stands_still():
                    self._on_notice(
                        f"worker {number} of the study (pid {process.pid}) has stood still for "
                        f"{_STANDS_STILL_SECONDS:.0f} s: it has used no processor; it is waited for"
                    )
        for number, process in busy:
            if process.connection in ready or process.sentinel in ready:
                return number, self._answer(number, process)
        return None

    def close(self) -> None:
        _end_all(self._workers)
        self._at_exit.cancel()

    def _answer(self, number: int, process: _Process) -> Report | Lost:
        assignment = process.assignment
        assert assignment is not None
        process.assignment = None
        answer = process.receive()
        if answer is not None:
            return report_in(answer)
        reason = process.how_it_ended()
        _end([process])
        self._workers[number] = None
        return Lost(assignment=assignment.number, reason=reason)

    def _start(self, worker: int) -> _Process:
        before = self._workers[worker]
        if before is not None:
            _end([before])
            self._workers[worker] = None
        others = [process.connection for process in self._workers if process is not None]
        try:
            process = self._workers[worker] = _Process(
                self._makers[worker], others, is_forked=self._is_forked
            )
        except OSError as error:
            raise RunError(
                "The system must be able to start the worker processes of a study",
                got=f"{error} at one of {self.num_workers}",
                remedy="Take fewer workers",
            ) from error
        return process


def can_fork(*, threads: int | None) -> bool:
    """Returns whether workers with so many threads each can be forked from this process."""
    return start_method() == "fork" and threads == 1 and not torch.accelerator.is_available()


def pickled_for_start(make: Make) -> bytes:
    """A worker's maker as bytes.

    Raises:
        UsageError: it cannot be pickled.
    """
    try:
        return pickled(make)
    except Exception as error:
        raise UsageError(
            "Worker processes that are started again must import the study's build function",
            got=f"{type(error).__name__}: {error}",
            remedy="Define it at the top of a module and name it as module:build, or take one "
            "worker",
        ) from error


def _end_all(workers: list[_Process | None]) -> None:
    for process in workers:
        if process is not None:
            process.dismiss()
    _end([process for process in workers if process is not None])
    workers[:] = [None] * len(workers)


def _end(processes: Sequence[_Process]) -> None:
    end_processes([process.ended() for process in processes], _PATIENCE_SECONDS)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A context in which Ctrl-C waits, so that a process that is started in it hears none before it
    ignores them."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if _CAN_HOLD else None
    try:
        yield
    finally:
        if old is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)


class _Process:
    """A process, and the assignment that it has in hand."""

    def __init__(self, make: Any, others: list[Connection], *, is_forked: bool) -> None:
        self.assignment: Assignment | None = None
        context: Any = multiprocessing.get_context("fork" if is_forked else "spawn")
        self.connection, there = context.Pipe()
        # What is forked inherits both ends of every connection that is open, and closes those that
        # are not its own.
        ends = [self.connection, *others] if is_forked else []
        # No daemon: a daemon may have no processes of its own, and a task's data may.
        self._process = context.Process(
            target=_serve,
            args=(there, make, ends, os.getpid()),
            name="volano-study-worker",
            daemon=False,
        )
        sys.stdout.flush()
        if not is_forked and _CAN_HOLD:
            # Otherwise the start below makes it, and lets signals through again as soon as it has.
            resource_tracker.ensure_running()
        try:
            with warnings.catch_warnings(), _interrupts_held():
                # Threads of ours hold no lock that a child needs.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._process.start()
        except OSError:
            self.connection.close()
            raise
        finally:
            there.close()
        self.sentinel: int = self._process.sentinel
        self.pid = self._process.pid
        self._ticks: int | None = None
        self._moved_at, self._is_named = time.monotonic(), False

    def is_alive(self) -> bool:
        """Returns whether it still runs."""
        return self._process.is_alive()

    def send(self, assignment: Assignment) -> None:
        """Hands an assignment out. That the process is dead shows when the answer is wanted."""
        self.assignment = assignment
        self._ticks, self._moved_at, self._is_named = None, time.monotonic(), False
        with contextlib.suppress(OSError):
            self.connection.send_bytes(pickled(assignment))

    def stands_still(self) -> bool:
        """Returns, once an assignment, that it has used no processor for long."""
        ticks, now = cpu_ticks(self.pid or 0), time.monotonic()
        if ticks is None or ticks != self._ticks:
            self._ticks, self._moved_at = ticks, now
        if self._is_named or now - self._moved_at < _STANDS_STILL_SECONDS:
            return False
        self._is_named = True
        return True

    def receive(self) -> bytes | None:
        """The answer to the assignment; None if there will be none."""
        try:
            return self.connection.recv_bytes() if self.connection.poll() else None
        except (EOFError, OSError):
            return None

    def how_it_ended(self) -> str:
        """Describes how it ended, in words."""
        how = how_it_ended(self._process, _PATIENCE_SECONDS)
        hint = ", often for want of memory" if self._process.exitcode == -signal.SIGKILL else ""
        return f"worker process {self._process.pid} {how}{hint}"

    def dismiss(self) -> None:
        """Asks it to end."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(b"")

    def ended(self) -> Any:
        """Closes the connection, and returns the process that is to end."""
        self.connection.close()
        return self._process


# ---- in the process


def _serve(there: Connection, make: Any, ends: list[Connection], parent: int) -> None:
    begin_as_child(ends)  # the driver decides what becomes of the study
    if _CAN_HOLD:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if ends:
        torch.set_num_threads(1)  # the pool of OpenMP's threads did not come over the fork
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(there, messages, parent), daemon=True).start()
    load_dynamo()  # which the first optimizer needs, while the first trials are asked for
    worker = None
    while True:
        message = messages.get()
        try:
            worker = worker or (pickle.loads(make) if isinstance(make, bytes) else make)()
            answer = answer_of(worker, message)
        except VolanoError as error:
            answer = pickled(error)
        except Exception as error:  # noqa: BLE001 - what the import of a person's module raises
            answer = pickled(defect_of(error))
        # A worker ends without running what flushes them otherwise.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        try:
            there.send_bytes(answer)
        except BrokenPipeError:
            os._exit(0)  # no listener is left


def _read(there: Connection, messages: queue.SimpleQueue[bytes], parent: int) -> None:
    # Reading at all times, so that the driver never waits to hand an assignment out; and the first
    # to hear that it is gone, in the middle of a training too.
    try:
        while True:
            while not there.poll(_LOOK_SECONDS):
                if os.getppid() != parent:
                    os._exit(0)
            message = there.recv_bytes()
            if not message:
                os._exit(0)
            messages.put(message)
    except (EOFError, OSError):
        os._exit(0)
