"""Runs a function in a forked process that may die, hang or leave settings behind without doing
harm.

Some calls end a process without an exception (a fake accelerator's autograd without that
accelerator's library), and some leave process-wide state behind. The answer comes back by pickle;
an error, as one line.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import pickle
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from volano.device import Device, num_cores
from volano.device.random_state import random_state_kept
from volano.device.start_processes import start_method
from volano.errors import RunError, reason_of
from volano.record.format import signal_name

_HEADER = 8  # bytes of an answer's length
_LONGEST_REASON = 300
# Settings of the user's code that a child must not act on.
_SIGNALS = (
    (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP) if os.name == "posix" else ()
)


class IsolatedError(RunError):
    """The error that the function gave no answer. ``reason`` says why in one line."""

    def __init__(self, rule: str, *, got: object = None, remedy: str | None = None) -> None:
        super().__init__(rule, got=got, remedy=remedy)
        self.reason = str(got)


def run_isolated(function: Callable[..., Any], *args: Any, timeout: float) -> Any:
    """Returns ``function(*args)``, computed in a forked process with one thread.

    Nothing is pickled on the way there; the result is, on the way back. If the system does not
    fork, the function runs in this process. A child may not start threads of OpenMP after a fork,
    hence the single thread.

    Args:
        function: any callable; closures and lambdas too.
        args: its arguments.
        timeout: seconds after which the process is ended.

    Raises:
        IsolatedError: the function raised, its process died, it gave no answer in time, or an
            answer that does not pickle.
    """
    if start_method() != "fork":
        return run_here(function, *args)
    return _ForkedProcess(function, args).answer(timeout)


def run_isolated_each(functions: Sequence[Callable[[], Any]], *, timeout: float) -> list[Any]:
    """Returns what :func:`run_isolated` does for each function, as many at a time as there are
    cores; the ``IsolatedError`` itself stands for a function without an answer."""
    width = num_cores() if start_method() == "fork" else 1
    found: list[Any] = []
    for start in range(0, len(functions), width):
        found += _run_together(functions[start : start + width], timeout)
    return found


def _run_together(functions: Sequence[Callable[[], Any]], timeout: float) -> list[Any]:
    children: list[_ForkedProcess] = []
    found: list[Any] = []
    try:
        with contextlib.suppress(IsolatedError):  # the others one after the other
            for function in functions if len(functions) > 1 else ():
                children.append(_ForkedProcess(function, ()))
        for number, function in enumerate(functions):
            try:
                found.append(
                    children[number].answer(timeout)
                    if number < len(children)
                    else run_isolated(function, timeout=timeout)
                )
            except IsolatedError as error:
                found.append(error)
        return found
    finally:
        for child in children[len(found) :]:
            child.close()


class _ForkedProcess:
    """A forked process that computes a function."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._reading, writing = os.pipe()
        try:
            with warnings.catch_warnings():
                # This process's threads hold no lock that a child needs: the child computes,
                # answers and leaves.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
        except OSError as error:
            os.close(self._reading)
            os.close(writing)
            raise _failure(f"no process could be started: {error.strerror}") from error
        if self._pid == 0:
            os.close(self._reading)
            _work(writing, function, args)
        os.close(writing)

    def answer(self, timeout: float) -> Any:
        """Waits for the answer, and ends the process.

        Raises:
            IsolatedError: as in :func:`run_isolated`.
        """
        try:
            answer = _read(self._reading, time.monotonic() + timeout)
        finally:
            status = self.close()
        if answer is None:
            raise _failure(f"gave no answer in {timeout:g} s")
        if not answer:
            raise _failure(_how_it_died(status))
        return _unpacked(answer)

    def close(self) -> int | None:
        """Ends the process, once; see :func:`_ended`."""
        if self._reading < 0:
            return None
        os.close(self._reading)
        self._reading = -1
        return _ended(self._pid)


def run_here(function: Callable[..., Any], *args: Any) -> Any:
    """Returns ``function(*args)``, computed in this process; errors are reported as from a
    child."""
    try:
        with random_state_kept(Device("cpu")), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in a child
            return function(*args)
    except Exception as error:
        raise _failure(reason_of(error)) from error


def _failure(reason: str) -> IsolatedError:
    return IsolatedError(
        "A function that runs in a process of its own must return a result",
        got=reason[:_LONGEST_REASON],
    )


def _read(reading: int, deadline: float) -> bytes | None:
    """Reads everything until the other end is closed or the answer is whole; returns None at the
    deadline."""
    parts = bytearray()
    poll = select.poll()  # select() takes no descriptor above 1023
    poll.register(reading, select.POLLIN)
    while True:
        if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            return None
        part = os.read(reading, 1 << 20)
        if not part:
            return b""  # closed before the answer was whole
        parts += part
        # The length comes first: a grandchild may hold the other end open.
        if len(parts) >= _HEADER and len(parts) >= _HEADER + int.from_bytes(parts[:_HEADER], "big"):
            return bytes(parts[_HEADER:])


def _ended(child: int) -> int | None:
    """Ends the process if it still runs, and returns its wait status; None if another thread has
    waited for it."""
    # A child that has answered leaves at once; one that has not is not waited for.
    for _ in range(100):
        try:
            done, status = os.waitpid(child, os.WNOHANG)
        except (
            ChildProcessError
        ):  # the parent ignores SIGCHLD, so that its children are not waited for
            return None
        if done:
            return status
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(child, 0)[1]
    return None


def _how_it_died(status: int | None) -> str:
    if status is None:
        return "the process ended without an answer"
    if os.WIFSIGNALED(status):
        return f"the process died with {signal_name(os.WTERMSIG(status))}"
    return f"the process ended with exit code {os.waitstatus_to_exitcode(status)} and no answer"


def _unpacked(answer: bytes) -> Any:
    try:
        succeeded, value = pickle.loads(answer)
    except Exception as error:
        raise _failure(f"its answer cannot be read: {reason_of(error)}") from error
    if not succeeded:
        raise _failure(value)
    return value


# ---- in the child


def _work(writing: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Computes, answers, and leaves without running anything that the parent has registered for its
    own end."""
    try:
        _detach()
        try:
            answer = pickle.dumps((True, function(*args)))
        except BaseException as error:  # noqa: BLE001 - SystemExit too is an answer here
            answer = pickle.dumps((False, reason_of(error)))
        _write(writing, len(answer).to_bytes(_HEADER, "big") + answer)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)


def _detach() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    atexit._clear()
    faulthandler.disable()  # a death is reported in one line, not by a stack on the parent's screen
    # Hooks that would write to what the parent watches.
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    # The run itself gives them; and where they are errors, torch's own would hide the answer.
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def _write(writing: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(writing, view) :]
