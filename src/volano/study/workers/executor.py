"""The contract of executors, which train a study's assignments, and the executor of this
process."""

from __future__ import annotations

import pickle
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from volano.device.start_processes import pickled
from volano.errors import RunError, VolanoError
from volano.study.workers.messages import Assignment, Lost, Report


class Answers(Protocol):
    """The interface of what an executor runs: a :class:`~volano.study.workers.worker.Worker`."""

    def run(self, assignment: Assignment) -> Report:
        """Trains what was assigned."""
        ...


Make = Callable[[], Answers]


class Executor(ABC):
    """A set of workers, numbered from 0, each with at most one assignment in hand. A context that
    ends with :meth:`close`.

    Attributes:
        num_workers: the number of assignments that can be in hand at once.
        notices: texts about the workers' start that a person should read.
    """

    num_workers: int
    notices: tuple[str, ...] = ()

    @abstractmethod
    def submit(self, worker: int, assignment: Assignment) -> None:
        """Hands an assignment to a worker that has none. One that was lost is started again for it,
        and knows nothing of what was trained before: the states in the assignment are where it goes
        on."""

    @abstractmethod
    def next_finished(self, timeout: float | None = None) -> tuple[int, Report | Lost] | None:
        """A worker and its answer, as soon as there is one; the worker has nothing in hand then.

        Args:
            timeout: seconds after which None is the answer; None waits as long as it takes.

        Returns:
            None too if no worker has anything in hand.

        Raises:
            VolanoError: what the worker raised: the study itself is invalid, or a defect.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the workers, in the middle of an assignment too. More than once does nothing."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def answer_of(worker: Answers, message: bytes) -> bytes:
    """Returns a worker's answer to an assignment, both as bytes: the one function that runs in
    other processes."""
    try:
        answer: Report | VolanoError = worker.run(pickle.loads(message))
    except VolanoError as error:
        answer = error
    except Exception as error:  # noqa: BLE001 - a defect of ours, or code at a module's top that does not run there
        answer = defect_of(error)
    return pickled(answer)


def defect_of(error: Exception) -> RunError:
    """Returns the report of an unforeseen exception."""
    where = "".join(traceback.format_exception(error)).strip()
    return RunError(
        "A worker of a study must answer each assignment",
        got=f"{type(error).__name__}: {error}\n{where}",
    )


def report_in(answer: bytes) -> Report:
    """The report in an answer. It comes from a process that this one, or its cluster, started.

    Raises:
        VolanoError: that the worker raised.
    """
    value = pickle.loads(answer)
    if isinstance(value, VolanoError):
        raise value
    assert isinstance(value, Report)
    return value


class InProcess(Executor):
    """The one worker in this process: it trains while :meth:`next_finished` is waited for, however
    long that takes."""

    num_workers = 1

    def __init__(self, make: Make) -> None:
        self._make: Make = make
        self._worker: Answers | None = None
        self._assignment: Assignment | None = None

    def submit(self, worker: int, assignment: Assignment) -> None:
        assert worker == 0
        assert self._assignment is None
        self._assignment = assignment

    def next_finished(self, timeout: float | None = None) -> tuple[int, Report | Lost] | None:  # noqa: ARG002
        """Implements :meth:`Executor.next_finished`; the timeout does nothing."""
        if self._assignment is None:
            return None
        assignment, self._assignment = self._assignment, None
        if self._worker is None:
            self._worker = self._make()
        return 0, self._worker.run(assignment)

    def close(self) -> None:
        self._worker = self._assignment = None
