"""The workers of a study as Ray actors: one for each accelerator of a cluster, or for each share of
its cores."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from volano.device import num_cores
from volano.device.start_processes import pickled
from volano.errors import RunError, UsageError, VolanoError, first_line
from volano.study.workers.executor import Answers, Executor, answer_of, defect_of, report_in
from volano.study.workers.messages import Assignment, Lost, Report

# An actor imports torch, which takes seconds, and may wait for a machine that is being started.
_START_SECONDS = 120.0
_CONNECT_SECONDS = 10.0
# States pass through the object store; what does not fit is spilled to the disk.
_OBJECT_STORE_BYTES = 512 * 2**20
# Ray's own way of switching its reports of usage off, for clusters that are started here
# (docs.ray.io, "Usage Stats Collection"); a cluster that is joined has decided for itself.
_NO_USAGE_REPORTS = {"RAY_USAGE_STATS_ENABLED": "0"}
_LONGEST_REASON = 300
_EXTRA = "pip install 'volano[cluster]'"


class _Starting(NamedTuple):
    """An actor that is being started in the place of one that was lost, and what it is for."""

    worker: int
    assignment: Assignment
    deadline: float


class RayActors(Executor):
    """An executor with one actor for each accelerator of a cluster; if it has none, one for each
    core.

    An actor that is lost, with its machine or alone, is started again with its next assignment.

    Args:
        make: the maker of a worker, called with ``threads``; sent with cloudpickle, so that
            closures and what stands in a script go over. Modules are imported on the machine of the
            actor, where they have to be, Volano too; the driver's ``sys.path`` is looked through
            there.
        address: ``"auto"`` or ``"host:port"`` of a cluster that runs; None starts one of this
            machine for the study.
        num: the number of actors; None is as many as the cluster has room for.
        threads: the threads of each worker; None is one if there are no accelerators.
        on_notice: the function that gets notices about the start.

    Raises:
        UsageError: Ray is not installed, there is no cluster at the address, or the worker cannot
            be sent.
        RunError: no actor started in two minutes.
    """

    def __init__(
        self, make: Callable[..., Answers], *, address: str | None = None, num: int | None = None,
        threads: int | None = None, on_notice: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_environment_kept())
        self._actors: list[Any] = []
        self._in_hand: dict[Any, tuple[int, Assignment]] = {}
        self._starting: dict[Any, _Starting] = {}
        try:
            self._ray = import_ray()
            self._stack.enter_context(_connected(self._ray, address, num))
            resources = self._ray.cluster_resources()
            num_accelerators = int(resources.get("GPU", 0))
            if not num_accelerators:
                threads = threads or 1
            self._options = {"num_gpus": 1} if num_accelerators else {"num_cpus": 1}
            self._made = self._ray.put(_sent(functools.partial(make, threads=threads)))
            room = num_accelerators or max(1, int(resources.get("CPU", 1)))
            self._start(min(room, num or room), wanted=num, on_notice=on_notice)
        except BaseException:
            self.close()
            raise

    def submit(self, worker: int, assignment: Assignment) -> None:
        if self._actors[worker] is None:
            actor = self._actors[worker] = self._actor()
            deadline = time.monotonic() + _START_SECONDS
            self._starting[actor.ready.remote()] = _Starting(worker, assignment, deadline)
        else:
            self._hand_out(worker, assignment)

    def next_finished(self, timeout: float | None = None) -> tuple[int, Report | Lost] | None:
        end = math.inf if timeout is None else time.monotonic() + timeout
        while self._in_hand or self._starting:
            until = min([end, *(starting.deadline for starting in self._starting.values())])
            seconds = None if until == math.inf else max(0.0, until - time.monotonic())
            ready, _ = self._ray.wait(
                [*self._in_hand, *self._starting], num_returns=1, timeout=seconds
            )
            if ready and ready[0] in self._in_hand:
                worker, assignment = self._in_hand.pop(ready[0])
                return worker, self._read(ready[0], worker, assignment)
            late = [
                call
                for call, starting in self._starting.items()
                if starting.deadline <= time.monotonic()
            ]
            for call in ready or late[:1]:
                starting = self._starting.pop(call)
                if (lost := self._started(call, starting)) is not None:
                    return starting.worker, lost
            if not ready and not late:
                return None
        return None

    def _hand_out(self, worker: int, assignment: Assignment) -> None:
        self._in_hand[self._actors[worker].run.remote(pickled(assignment))] = (worker, assignment)

    def _read(self, call: Any, worker: int, assignment: Assignment) -> Report | Lost:
        try:
            return report_in(self._ray.get(call))
        except self._ray.exceptions.RayError as error:
            self._give_up(worker)
            return Lost(assignment=assignment.number, reason=_why_lost(error))

    def _started(self, call: Any, starting: _Starting) -> Lost | None:
        """Hands out what an actor was started for; Lost if it has not started."""
        try:
            error = self._ray.get(call, timeout=0)
        except self._ray.exceptions.RayError as failure:  # GetTimeoutError too
            self._give_up(starting.worker)
            reason = f"no actor starts in the place of one that was lost: {_why_lost(failure)}"
            return Lost(assignment=starting.assignment.number, reason=reason)
        if error:
            raise pickle.loads(error)
        self._hand_out(starting.worker, starting.assignment)
        return None

    def _give_up(self, worker: int) -> None:
        with contextlib.suppress(Exception):  # it may be gone already, and so may the cluster
            self._ray.kill(self._actors[worker])
        self._actors[worker] = None

    def close(self) -> None:
        for worker, actor in enumerate(self._actors):
            if actor is not None:
                self._give_up(worker)
        self._actors, self._in_hand, self._starting = [], {}, {}
        self._stack.close()

    def _actor(self) -> Any:
        # No restarts by Ray: an actor that is new knows nothing, and whoever waits for its answer
        # has to hear of it.
        return (
            self._ray.remote(_Actor)
            .options(max_restarts=0, **self._options)
            .remote(self._made, sys.path)
        )

    def _start(self, num: int, *, wanted: int | None, on_notice: Callable[[str], None]) -> None:
        actors = [self._actor() for _ in range(num)]
        calls = [actor.ready.remote() for actor in actors]
        self._ray.wait(calls, num_returns=num, timeout=_START_SECONDS)
        reason = ""
        for actor, call in zip(actors, calls, strict=True):
            try:
                error_or_nothing = self._ray.get(call, timeout=0)
            except self._ray.exceptions.RayError as error:
                reason = first_line(error)
                self._ray.kill(actor)
                continue
            self._actors.append(actor)
            if error_or_nothing:
                raise pickle.loads(error_or_nothing)
        self.num_workers = len(self._actors)
        if not self._actors:
            raise RunError(
                f"A cluster must have room for a worker that asks for {self._options}",
                got=f"none in {_START_SECONDS:.0f} s: {reason}",
                remedy="Look at ray status",
            )
        if self.num_workers < (wanted or num):
            self.notices = (
                f"{self.num_workers} workers on the cluster, not {wanted or num}: it has no room "
                "for more",
            )
            on_notice(self.notices[0])


class _Actor:
    """A worker in the actor's process."""

    def __init__(self, made: bytes, paths: list[str]) -> None:
        self._made = made
        self._worker: Any = None
        # Where the driver finds its modules; on another machine they may lie in the same place.
        sys.path += [path for path in paths if path not in sys.path and Path(path).is_dir()]

    def ready(self) -> bytes:
        """Makes the worker, so that what is wrong with its device is heard at the start: nothing,
        or the error."""
        from ray import cloudpickle

        try:
            self._worker = cloudpickle.loads(self._made)()
        except VolanoError as error:
            return pickled(error)
        except Exception as error:  # noqa: BLE001 - what the import of a person's module raises
            return pickled(defect_of(error))
        return b""

    def run(self, message: bytes) -> bytes:
        """Calls :func:`answer_of`."""
        return answer_of(self._worker, message)


def import_ray() -> Any:
    """Imports Ray.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "Workers on a cluster need Ray", got=str(error), remedy=f"Run {_EXTRA}"
        ) from error
    return ray


def _sent(make: Any) -> bytes:
    from ray import cloudpickle

    try:
        return cloudpickle.dumps(make)
    except Exception as error:
        raise UsageError(
            "The study's build function must be such that it can be sent to a cluster",
            got=f"{type(error).__name__}: {first_line(error)}",
            remedy="Open files, locks and connections inside it, not around it",
        ) from error


@contextlib.contextmanager
def _connected(ray: Any, address: str | None, num: int | None) -> Iterator[None]:
    """A context with a cluster: the one to which this process is connected already, or else its
    own."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is None:
        os.environ.update(_NO_USAGE_REPORTS)
        cores = max(num_cores(), num or 1)
        # "local", for without an address Ray joins one that runs on this machine.
        settings = {
            **quiet,
            "address": "local",
            "num_cpus": cores,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    else:
        settings = {"log_to_driver": False, "logging_level": "ERROR", "address": address}
    try:
        _check_listens(address)
        ray.init(**settings)
    except (OSError, RuntimeError, ValueError) as error:
        ray.shutdown()
        raise _unreachable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_listens(address: str | None) -> None:
    # Ray itself tries for minutes, and prints while it does.
    host, separator, port = (address or "").rpartition("://")[2].rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _unreachable(address: str | None, error: Exception) -> VolanoError:
    if address is None:
        return RunError(
            "Ray must be able to start a cluster on this machine", got=first_line(error)
        )
    remedy = "Start one with ray start --head, or give 'local'"
    if "InvalidAuthToken" in str(error.__cause__):
        remedy = (
            "It wants a token: set RAY_AUTH_MODE=token, with the cluster's token where Ray "
            "looks for it"
        )
    return UsageError(
        "A Ray cluster must run at the address",
        got=f"{address!r}: {first_line(error)}",
        remedy=remedy,
    )


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """A context after which what Ray sets is what it was: the environment, the handler of SIGTERM,
    its log's level."""
    is_main = threading.current_thread() is threading.main_thread()
    log = logging.getLogger("ray")
    environment, handler, level = dict(os.environ), signal.getsignal(signal.SIGTERM), log.level
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        log.setLevel(level)
        if is_main:
            signal.signal(signal.SIGTERM, handler)


def _why_lost(error: BaseException) -> str:
    # Ray's text names the actor first, and then, in a line of its own, what became of its process.
    cause = next(
        (line for line in str(error).splitlines() if line.startswith("The actor is dead because")),
        "",
    )
    return f"{first_line(error)} {cause}".strip()[:_LONGEST_REASON]
