"""Chooses where a study's trials are trained: in this process, in several, or on a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from volano.device import Device, num_cores
from volano.errors import UsageError
from volano.planner import share_of_threads
from volano.study.workers.executor import Executor, InProcess
from volano.study.workers.process_pool import ProcessPool, can_fork
from volano.study.workers.trial_tasks import Build
from volano.study.workers.worker import Worker

# What `ray` may be in place of an address: a cluster of this machine alone, started for the study.
LOCAL = "local"
# A process is worth its start for so many trials; more processes than that hold more of the data
# than they train.
_TRIALS_EACH, _MOST_PROCESSES = 4, 8


def make_executor(
    build: Build, *, device: str | None = None, nproc: int | None = None, ray: str | None = None,
    precision: str = "fp32", engine: str | None = None, threads: int | None = None,
    num_trials: int | None = None, on_notice: Callable[[str], None] = lambda _: None,
) -> Executor:  # fmt: skip
    """Starts a study's workers.

    Args:
        build: ``(trial) -> Task``.
        device: the device as torch writes it; None is every accelerator, or the CPU without one.
        nproc: the number of processes, a worker each; None is one for each accelerator, and on the
            CPU one of one thread for each core, as far as there are trials and processes can be
            forked: steps of small nets gain less from a second thread.
        ray: ``"local"`` starts a cluster of this machine; ``"auto"`` or ``"host:port"`` joins one
            that runs.
        precision: the precision of the forward and backward pass.
        engine: the engine of all packs; None finds the fastest for each.
        threads: the threads of each worker's host; None is its share of the cores, if there are
            several.
        num_trials: the number of trials that are to come: a process of its own needs some of them.
        on_notice: the function that gets notices about the choice.

    Raises:
        UsageError: they are invalid; the extra ``cluster`` is missing; ``build`` cannot be sent
            to them.
        RunError: they do not start.
    """
    if nproc is not None and nproc < 1:
        raise UsageError("`nproc` must be a number of processes, at least 1", got=nproc)
    settings: dict[str, Any] = {"precision": precision, "engine": engine}
    if ray is not None:
        from volano.study.workers.ray_actors import RayActors

        address = None if ray in ("", LOCAL) else ray
        make = functools.partial(Worker, build, device=device, **settings)
        return RayActors(make, address=address, num=nproc, threads=threads, on_notice=on_notice)
    devices = devices_of_workers(device, nproc or _workers_that_pay(device, num_trials))
    if len(devices) == 1:
        return InProcess(
            functools.partial(Worker, build, device=devices[0], threads=threads, **settings)
        )
    threads = threads or share_of_threads(len(devices))
    is_forked = can_fork(threads=threads)
    makers = [
        functools.partial(Worker, build, device=name, threads=threads, **settings)
        for name in devices
    ]
    try:
        return ProcessPool(makers, is_forked=is_forked, on_notice=on_notice)
    except UsageError as error:
        if not can_fork(threads=1):
            if nproc is not None:
                raise
            on_notice(f"one of {len(devices)} accelerators is used: {error.got}. {error.remedy}")
            return InProcess(functools.partial(Worker, build, device=devices[0], **settings))
        on_notice(f"workers have one thread each: with {threads}, {error.got}")
        makers = [
            functools.partial(Worker, build, device=name, threads=1, **settings) for name in devices
        ]
        return ProcessPool(makers, is_forked=True, on_notice=on_notice)


def _workers_that_pay(device: str | None, num_trials: int | None) -> int | None:
    """Returns the number of workers of one thread each that pay on the CPU; None if there is an
    accelerator, or one worker suffices."""
    if not Device(device).is_cpu or not can_fork(threads=1):
        return None
    workers = min(num_cores(), _MOST_PROCESSES, (num_trials or 0) // _TRIALS_EACH)
    return workers if workers > 1 else None


def devices_of_workers(device: str | None, workers: int | None) -> list[str]:
    """The device of each worker of this machine.

    Raises:
        UsageError: there are fewer accelerators than workers.
    """
    found = Device(device)
    if found.is_cpu:
        return [found.name] * (workers or 1)
    # A device with an index is that one; a kind is every one of it.
    is_one = device is not None and ":" in device
    num = 1 if is_one else Device.count()
    if workers is not None and workers > num:
        raise UsageError(
            "Each worker needs an accelerator of its own", got=f"{workers} workers on {num}"
        )
    return [found.name] if is_one else [f"{found.kind}:{index}" for index in range(workers or num)]
