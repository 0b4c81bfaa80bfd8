"""Planning without training: what the planner would do with a task, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volano.errors import UsageError
from volano.planner import Explanation, explain_absent, find_plan, measured_beside
from volano.running.plan_run import EXPLANATION, PlanOptions
from volano.running.references import load_application, load_task
from volano.task import Task
from volano.training import RunFolder


def explain(
    task: Task | str,
    *,
    device: str | None = None,
    on: str | None = None,
    budget: int | None = None,
    pins: Mapping[str, Any] | None = None,
    forbid: Mapping[str, Any] | None = None,
    analyze: bool = False,
) -> Explanation:
    """What the planner would choose for a task, every candidate with its figures, and why. Nothing is trained.

    Args:
        task: a Task, or ``"module:name"`` of one or of a function that returns one.
        device: as torch writes it; None is the accelerator, or the CPU without one.
        on: name of a device that is not here (``"H100 80GB"``): nothing runs, everything is predicted.
        budget: bytes that the training may hold on the device; None is what is there.
        pins, forbid: see ``volano.train``.
        analyze: whether the chosen plan is run for some steps, and what is measured set beside what was predicted.

    Raises:
        UsageError: the task or the device cannot be meant.
        VolanoError: the task cannot be run, as the run itself would say it.
    """
    if isinstance(task, str):
        task = load_task(task)
    if not isinstance(task, Task):
        raise UsageError("explain takes a volano.Task or 'module:name'", got=type(task).__name__)
    return _explained(
        task, PlanOptions(device=device, pins=pins or {}, forbid=forbid or {}, budget=budget), on, analyze
    )


def explain_application(
    kind: str,
    path: str | Path | None = None,
    *,
    device: str | None = None,
    on: str | None = None,
    budget: int | None = None,
    pins: Mapping[str, Any] | None = None,
    forbid: Mapping[str, Any] | None = None,
    analyze: bool = False,
    **options: Any,
) -> Explanation:
    """The same for what ``volano train KIND PATH`` would train.

    Args:
        kind: ``"image"``, ``"text"`` or ``"video"``.
        path: of the data; None is the embedded sample.
        device, on, budget, pins, forbid, analyze: see :func:`explain`.
        options: of the application, ``minutes`` and ``epochs`` included.
    """
    planning = PlanOptions(device=device, pins=pins or {}, forbid=forbid or {}, budget=budget)
    with load_application(kind).task_to_plan(path, planning, **options) as task:
        return _explained(task, planning, on, analyze)


def explain_run(path: str | Path) -> Explanation:
    """Why a run's plan is what it is.

    Raises:
        UsageError: it is not a run's folder, or the plan of that run was given and not found.
    """
    folder = RunFolder.open(path)
    if not (folder.path / EXPLANATION).is_file():
        raise UsageError("A run that was planned holds explanation.json", got=f"none in {folder.path}")
    return Explanation.from_json(folder.read_json(EXPLANATION))


def _explained(task: Task, planning: PlanOptions, on: str | None, analyze: bool) -> Explanation:
    if on is not None:
        if planning.device is not None:
            raise UsageError("A plan is explained for one device", got=f"--device {planning.device} and --on {on}")
        if analyze:
            raise UsageError("Measuring takes the device itself", got=f"--analyze with --on {on}")
        return explain_absent(task, on, planning.wish())
    wish = dataclasses.replace(planning.wish(), is_free=True)
    explanation = find_plan(task, wish).explanation
    if analyze and explanation.verdict == "NO":  # running it would take the memory that it must not
        notice = "nothing was measured: no plan fits the budget"
        return dataclasses.replace(explanation, notices=(*explanation.notices, notice))
    return measured_beside(task, explanation) if analyze else explanation
