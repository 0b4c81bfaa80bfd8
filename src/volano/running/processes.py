"""The processes of a run: this one, ranks that torchrun started, or processes started here.

However many there are, the first process plans and prepares the run's folder; then every rank makes
the same task from what stands there and trains. So a restart after a failure and a resume under
another number of ranks are one act.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.device import Device, Ranks
from volano.errors import RunError, UsageError
from volano.plan import Plan
from volano.planner import PlanRequest, PlanResult, share_of_threads
from volano.running.minutes import with_steps_of
from volano.running.plan_run import split_when_needed
from volano.running.references import load_task, task_again
from volano.running.trust import check_trusted, trust_folder
from volano.task import Task
from volano.thread_waits import shorten_waits
from volano.training import (
    PREPARED,
    LengthRule,
    Observer,
    Run,
    RunFolder,
    Safety,
    check_ranks,
    load_run,
    make_progress,
    prepare_run,
    run_task,
)
from volano.training.signals import signals_to_stop

# In the environment of the ranks: show whole tracebacks.
DEBUG = "VOLANO_DEBUG"
# The word for one process per accelerator, as torchrun has it too.
EACH_ACCELERATOR = "gpu"
# What is said to the launcher of the ranks at a second Ctrl-C.
END_AT_ONCE = b"!"
_LOST_RANK = re.compile(r"gloo|nccl|xccl|by peer|DistBackendError|remote process", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that a run has on this machine: how many (``"gpu"`` is one for each
    accelerator), how often they are started again after a failure, and whether they show the
    tracebacks of their errors.

    Raises:
        UsageError: at birth, if a number is invalid.
    """

    nproc: int | str = 1
    max_restarts: int = 0
    debug: bool = False

    def __post_init__(self) -> None:
        if self.nproc == EACH_ACCELERATOR:
            object.__setattr__(self, "nproc", Device.count())
            if not self.nproc:
                raise UsageError(
                    f"`nproc` {EACH_ACCELERATOR} needs accelerators", got="none on this machine"
                )
        if isinstance(self.nproc, str) and self.nproc.isdecimal() and len(self.nproc) < 10:
            object.__setattr__(self, "nproc", int(self.nproc))
        if not isinstance(self.nproc, int) or self.nproc < 1:
            raise UsageError(
                "`nproc` must be a number of processes, at least 1", got=self.nproc,
                remedy=f"{EACH_ACCELERATOR} is one for each accelerator",
            )  # fmt: skip
        if self.max_restarts < 0:
            raise UsageError("`max_restarts` must be a number, at least 0", got=self.max_restarts)
        if self.max_restarts and self.nproc == 1:
            raise UsageError(
                "`max_restarts` is for several processes only",
                got=f"{self.max_restarts} with one",
                remedy="Give `nproc`",
            )

    @property
    def count(self) -> int:
        """The number of processes that are started here."""
        return int(self.nproc)

    @property
    def world_size(self) -> int:
        """The number of ranks that will train: these processes, or those that torchrun has started
        already.

        Raises:
            UsageError: both at once.
        """
        started = Ranks.from_environment()
        if started.are_several and self.count > 1:
            raise UsageError(
                "Ranks must be started either by torchrun or by `nproc`",
                got=f"both, {started.world_size} and {self.nproc}",
            )
        return max(started.world_size, self.count)


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """The settings of a run, whatever it trains; see ``volano.train``.

    Attributes:
        planning: the request for the plan.
        out: the folder of the run; None makes one.
        safety: the safety settings; None is the default, or in a resumed run what the run had.
        processes: the processes that train together.
        observer: the observer that hears of planning and of the run.
    """

    planning: PlanRequest
    out: str | Path | None
    safety: Safety | None
    processes: Processes
    observer: Observer

    @classmethod
    def of(
        cls,
        *,
        planning: PlanRequest | None = None,
        out: str | Path | None = None,
        safety: Safety | None = None,
        processes: Processes | None = None,
        observer: Observer | None = None,
    ) -> TrainingRequest:
        """Returns the settings with their defaults for what is left open; a run keeps to the budget
        of its plan."""
        observer = observer or make_progress()
        planning = dataclasses.replace(planning or PlanRequest(), observer=observer)
        if planning.budget is not None:
            safety = dataclasses.replace(safety or Safety(), memory_limit=planning.budget)
        return cls(
            planning=planning, out=out, safety=safety, processes=processes or Processes(),
            observer=observer,
        )  # fmt: skip


def check_processes(
    task: Task, plan: Plan, processes: Processes | None, source: dict[str, Any] | None = None
) -> None:
    """Raises UsageError unless so many processes can train the task under the plan. Before a folder
    is made."""
    processes = processes or Processes()
    check_ranks(task, plan, processes.world_size)
    is_cpu = Device(plan.device).is_cpu
    if processes.count > 1 and not is_cpu and processes.count > Device.count():
        raise UsageError(
            "Each rank needs an accelerator of its own",
            got=f"{processes.nproc} ranks on {Device.count()}",
        )
    if processes.count > 1 and (source or {}).get("kind") == "python":
        raise UsageError(
            "A task that several processes train must be one that each of them can make again",
            got="a Task object",
            remedy="Name it as module:task, or start your script with torchrun",
        )


def begin(
    task: Task,
    chosen: PlanResult,
    folder: RunFolder,
    settings: TrainingRequest,
    *,
    source: dict[str, Any],
    notices: tuple[str, ...],
    length: LengthRule | None,
) -> Run:
    """Trains a task in its new folder, by as many processes as were asked for; see ``run_task`` for
    the other arguments.

    Raises:
        VolanoError: as its subclasses say.
    """
    plan, safety, world_size = chosen.plan, settings.safety, settings.processes.world_size
    notices = (*notices, *idle_accelerators(Device(plan.device), world_size))
    if world_size == 1:
        known = chosen.may_split
        return run_task(
            task, plan, folder, observer=settings.observer, source=source, notices=notices,
            safety=safety, length=length,
            may_split=split_when_needed(task, plan) if known is None else known,
        )  # fmt: skip
    check_processes(task, plan, settings.processes, source)
    prepare_run(task, plan, folder, source=source, notices=notices, safety=safety)
    return _by_ranks(task, plan, folder, settings)


def go_on(task: Task, folder: RunFolder, settings: TrainingRequest) -> Run:
    """Runs the rest of a task in its folder.

    Raises:
        VolanoError: as its subclasses say.
    """
    plan, task = Plan.load(folder.path / "plan.json"), with_steps_of(task, folder)
    safety = settings.safety
    if settings.processes.world_size == 1:
        return run_task(
            task, plan, folder, observer=settings.observer, resume=True, safety=safety,
            may_split=split_when_needed(task, plan),
        )  # fmt: skip
    check_processes(task, plan, settings.processes)
    with folder.held():  # refused here, before any rank is started
        changes = {} if safety is None else {"safety": safety.to_json()}
        folder.update_run(status=PREPARED, **changes)
    return _by_ranks(task, plan, folder, settings)


def _by_ranks(task: Task, plan: Plan, folder: RunFolder, settings: TrainingRequest) -> Run:
    """Trains a task whose folder is prepared."""
    folder.release()  # the first of the ranks holds it from here on
    if settings.processes.count > 1:
        _start(folder, plan, settings.processes)
        return load_run(task, folder)
    ranks = Ranks.from_environment()
    ranks.join().tell(str(folder.path.absolute()))
    return run_task(
        task, plan, folder, observer=settings.observer, resume=True, safety=settings.safety,
        ranks=ranks,
    )  # fmt: skip


def idle_accelerators(device: Device, world_size: int) -> tuple[str, ...]:
    """Returns the notice that other accelerators of this machine have nothing to do; empty if there
    are none, or several processes train."""
    others = 0 if device.is_cpu or world_size > 1 else Device.count() - 1
    if others < 1:
        return ()
    idle = "1 more accelerator is" if others == 1 else f"{others} more accelerators are"
    return (f"{idle} idle: `nproc` {EACH_ACCELERATOR} trains on all of them",)


def is_follower() -> bool:
    """Returns whether torchrun started this process as a rank other than the first."""
    return not Ranks.from_environment().is_first


def follow(task: Task | None = None) -> Run:
    """Runs a rank other than the first: waits until the first has prepared the run, then trains
    with it.

    Args:
        task: the same task that the first rank has; None makes it from the run's folder.
    """
    ranks = Ranks.from_environment()
    return work(RunFolder.open(ranks.join().tell()), ranks, task=task)


def work(
    folder: RunFolder, ranks: Ranks, *, task: Task | None = None, observer: Observer | None = None
) -> Run:
    """A rank's part in a run that is prepared, from where it stands to the end. The ranks have
    joined."""
    trust_folder(folder.path)  # whoever started the ranks has been asked
    plan = Plan.load(folder.path / "plan.json")
    task = with_steps_of(task_of(folder) if task is None else task, folder)
    return run_task(task, plan, folder, observer=observer, resume=True, ranks=ranks)


def task_of(folder: RunFolder) -> Task:
    """The task of a run, made again.

    Raises:
        UsageError: it was started from Python with a Task object, what it was made of is gone, or
            it names code that the person has not.
    """
    source = folder.read_json("run.json").get("source") or {}
    kind = source.get("kind", "python")
    if kind == "reference":
        check_trusted(source.get("reference"), folder.path)
        return load_task(str(source.get("reference")))
    if kind == "python":
        raise UsageError(
            "A run that was started from Python must be resumed with its task",
            got=f"{folder.path} without one",
            remedy=f"Call volano.resume({str(folder.path)!r}, task=task)",
        )
    return task_again(folder, kind)


def tells_of_lost_rank(text: str) -> bool:
    """Returns whether an error is torch's report of another rank that is no longer there."""
    return bool(_LOST_RANK.search(text))


def _start(folder: RunFolder, plan: Plan, processes: Processes) -> None:
    """Runs the ranks and waits for them. Ctrl-C and SIGTERM ask them to stop after the step in
    flight, and to save."""
    # Not with the current folder first on the path of modules: data may lie there.
    command = [sys.executable, "-P", "-m", "volano.running.elastic_launcher", str(folder.path)]
    command += [str(processes.nproc), str(processes.max_restarts)]
    environment = {**os.environ}
    if Device(plan.device).is_cpu:
        # Spinning threads of one rank would take the cores of the others.
        environment.setdefault("OMP_NUM_THREADS", str(share_of_threads(processes.count)))
        shorten_waits(environment)
    if processes.debug:
        environment[DEBUG] = "1"
    # In a session of their own, so that a terminal's Ctrl-C reaches them once, through this
    # process; and at the end of a pipe, whose other end goes with this process however it dies.
    # What a task prints goes to standard error.
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=2, start_new_session=True
    )
    with _handed_on(child) as asked, child:  # closes the pipe
        code = child.wait()
    record = folder.read_json("run.json")
    if code and record.get("status") not in ("finished", "stopped"):
        if asked:
            with contextlib.suppress(UsageError), folder.held():
                folder.update_run(status="failed", reason="interrupted")
            raise KeyboardInterrupt
        raise RunError(
            "The processes of a run must end without an error",
            got=str(record.get("reason") or f"exit code {code}").rstrip("."),
            remedy=f"Continue with `nproc` {processes.nproc}: {folder.resume_command}",
        )


@contextlib.contextmanager
def _handed_on(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """A context in which the signals to stop reach the child as SIGTERM, once: a second one would
    end torchrun's agent before its ranks have saved. A second Ctrl-C ends them all at once.

    Yields:
        the signals that came.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    old = {number: signal.getsignal(number) for number in signals_to_stop()}

    def ask(number: int, _: Any) -> None:
        asked.append(number)
        if len(asked) == 1:
            child.send_signal(signal.SIGTERM)
        elif number == signal.SIGINT and child.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(child.stdin.fileno(), END_AT_ONCE)

    for number in old:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
