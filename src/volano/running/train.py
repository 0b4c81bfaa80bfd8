"""Trains and resumes a task of one's own."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from volano.errors import UsageError
from volano.record.run_folder import PAGE
from volano.report.verdict import Verdict
from volano.running.checks import check_begun
from volano.running.end_run import with_report, with_verdict
from volano.running.minutes import fit_minutes, is_in_minutes
from volano.running.plan_run import choose_plan
from volano.running.processes import TrainingRequest, begin, check_processes, go_on, task_of
from volano.task import Task
from volano.task.code_digest import CODE
from volano.training import Run, RunFolder, Safety, check_plan


def train_task(
    task: Task, settings: TrainingRequest, *, source: dict[str, Any] | None = None
) -> Run:
    """Plans a task, then runs it.

    Args:
        task: the task to train.
        settings: the settings of the run.
        source: the way in which another process can make the task again; None says that only Python
            can.

    Raises:
        VolanoError: as its subclasses say.
    """
    started = time.perf_counter()
    source = {"kind": "python"} if source is None else source
    folder, observer = RunFolder.reserve(settings.out, task.name), settings.observer
    observer.on_phase(f"choosing a plan for {task.name}")
    request, world_size, length = settings.planning, settings.processes.world_size, None
    if is_in_minutes(task):
        task, chosen, length = fit_minutes(task, request, started=started, world_size=world_size)
    else:
        chosen = choose_plan(task, request, world_size=world_size)
    check_plan(task, chosen.plan)
    check_processes(task, chosen.plan, settings.processes, source)
    folder.make()
    chosen.write(folder)
    run = begin(
        task, chosen, folder, settings, source=source, notices=chosen.reasons, length=length
    )
    return with_report(with_verdict(run, observer), observer)


def resume_task(run: str | Path, settings: TrainingRequest, *, task: Task | None = None) -> Run:
    """Resumes the run of a task of one's own; see ``volano.resume``."""
    folder = RunFolder.open(run)
    check_unfinished(folder)
    ended = go_on(task_of(folder) if task is None else task, folder, settings)
    return with_report(with_verdict(ended, settings.observer), settings.observer)


def kind_of(run: str | Path) -> str:
    """Returns the kind of a run: ``"image"`` or another application, ``"reference"`` or
    ``"python"`` for a task of one's own.

    Raises:
        UsageError: it is not a run's folder.
    """
    return (RunFolder.open(run).read_json("run.json").get("source") or {}).get("kind", "python")


def change_safety(run: str | Path, **changes: Any) -> None:
    """Sets fields of a run's :class:`Safety`, for the next time that it is resumed.

    Raises:
        UsageError: not a run's folder, a process works in it, or a setting is invalid.
    """
    folder = RunFolder.open(run)
    with folder.held():
        safety = Safety.from_json(folder.read_json("run.json").get("safety"))
        folder.update_run(safety=dataclasses.replace(safety, **changes).to_json())


def accept_code(run: str | Path, names: Collection[str]) -> None:
    """Lets the next resume take another code of a task's ``names``.

    Raises:
        UsageError: not a run's folder, a process works in it, or a name is none of code.
    """
    for name in names:
        if name not in CODE:
            raise UsageError(f"`accept` must name code: {', '.join(CODE)}", got=repr(name))
    folder = RunFolder.open(run)
    with folder.held():
        folder.update_run(accept=list(names))


def _longer(folder: RunFolder) -> str:
    """Returns how a finished training is made longer, in words."""
    verdict = Verdict.of_json(folder.read_json("run.json").get("verdict"))
    if verdict is None or verdict.longer is None:
        return "Train again, for longer"
    return f"A longer one: {verdict.longer}"


def check_unfinished(folder: RunFolder) -> None:
    """Raises UsageError if the run has nothing left to do, or has not come so far that it can be
    resumed.

    The page is the last that a run writes: one that was killed before it has that left to do.
    """
    check_begun(folder)
    status = folder.read_json("run.json").get("status")
    if status == "finished" and (folder.path / PAGE).is_file():
        raise UsageError(
            "A run to resume must have steps left",
            got=f"{folder.path}, which is finished",
            remedy=_longer(folder),
        )
