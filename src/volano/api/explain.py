"""Plans without training: shows what the planner would do with a task, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volano.api.train import named, refuse_options
from volano.device import find_device
from volano.errors import UsageError
from volano.plan import parse_bytes
from volano.plan.cluster import ClusterExplanation
from volano.planner import (
    EXPLANATION,
    Explanation,
    PlanRequest,
    explain_absent,
    explain_cluster,
    find_plan,
    measured_beside,
    names_cluster,
)
from volano.running.minutes import with_probe_steps
from volano.task import Task
from volano.training import Observer, RunFolder, make_progress

if TYPE_CHECKING:
    from volano.apps.application import Application


def explain(
    what: Task | str | type[Application],
    path: str | Path | None = None,
    *,
    device: str | None = None,
    on: str | None = None,
    budget: int | str | None = None,
    pins: Mapping[str, Any] | None = None,
    forbid: Mapping[str, Any] | None = None,
    race: bool | None = None,
    analyze: bool = False,
    observer: Observer | None = None,
    nodes: int | None = None,
    **options: Any,
) -> Explanation | ClusterExplanation:
    """Explains what the planner would choose, every candidate with its figures, and why. Nothing is
    trained.

    Every candidate is predicted first, from the measured rates of this machine; then they are run
    for some steps each, if that takes less time than it can save of the run.

    Args:
        what, path: the things that would be trained; see ``volano.train``.
        device: the device as torch writes it; None is the accelerator, or the CPU without one.
        on: name of a device that is not here (``"H100 80GB"``), or of many (``"H100 x 64"``, 1 to
            10,000): nothing runs, everything is predicted.
        budget: bytes that the training may hold on the device, or a text such as ``"6GiB"``; None
            is what is there.
        pins, forbid: see ``volano.train``.
        race: whether candidates are run; None if that pays. Within two minutes if it was asked for,
            half a minute otherwise.
        analyze: whether the chosen plan is run for some steps, and what is measured shown next to
            what was predicted.
        observer: the observer that hears of phases, of the predictions before a race, and of each
            candidate as it has run; None shows progress on standard error.
        nodes: the machines over which many devices are spread; None fills each.
        options: the options of an application; see ``volano.train``.

    Returns:
        An ``Explanation``; for many devices a ``ClusterExplanation``.

    Raises:
        UsageError: the task or the device is invalid.
        VolanoError: the task cannot be run, as the run itself would say it.
    """
    num_bytes = parse_bytes(budget) if isinstance(budget, str) else budget
    _check_on(on, device=device, nodes=nodes, analyze=analyze, race=race)
    is_cluster = on is not None and names_cluster(on)
    planning = PlanRequest(
        device=device, on=None if is_cluster else on, pins=pins or {}, forbid=forbid or {},
        budget=num_bytes, is_raced=race, is_free=True, observer=observer or make_progress(),
    )  # fmt: skip
    value, _ = named(what)
    if isinstance(value, Task):
        refuse_options({"path": path, **options})
        return _explained(*with_probe_steps(value, planning), on, nodes, analyze)
    from volano.apps.kinds import CLASSIFY, application_class, choose_application
    from volano.apps.train import CHOSEN_HERE, task_to_plan

    application, chosen = choose_application(value, {"path": path, **options})
    if application is application_class(CLASSIFY) and chosen.from_ is None:
        raise UsageError(
            "Only a training that is planned can be explained",
            got="a classifier of texts without `from_`, which trains in seconds, without a plan",
            remedy="Train it, or name an encoder with `from_`",
        )
    with task_to_plan(application, chosen, planning) as (task, request, said):
        found = _explained(task, request, on, nodes, analyze)
        said = (CHOSEN_HERE,) if is_cluster else said
        return dataclasses.replace(found, notices=(*said, *found.notices))


def explain_run(path: str | Path) -> Explanation:
    """Returns why a run's plan is what it is.

    Raises:
        UsageError: it is not a run's folder, or the plan of that run was given and not found.
    """
    folder = RunFolder.open(path)
    if not (folder.path / EXPLANATION).is_file():
        raise UsageError(
            "A run that was planned must hold explanation.json", got=f"none in {folder.path}"
        )
    return Explanation.from_json(folder.read_json(EXPLANATION))


def _check_on(
    on: str | None, *, device: str | None, nodes: int | None, analyze: bool, race: bool | None
) -> None:
    """Raises UsageError for what does not go with a device that is not here."""
    if nodes is not None and not (on is not None and names_cluster(on)):
        raise UsageError(
            "`nodes` must come with many devices in `on`",
            got="none" if on is None else f"`on` {on}",
            remedy="Write on='H100 x 64'",
        )
    if on is None:
        return
    if device is not None:
        raise UsageError(
            "A plan must be explained for one device", got=f"`device` {device} and `on` {on}"
        )
    for name, is_given in (("analyze", analyze), ("race", race)):
        if is_given:
            raise UsageError("Measuring needs the device itself", got=f"`{name}` with `on` {on}")
    if not names_cluster(on):
        find_device(on)  # before data is read for it


def _explained(
    task: Task, planning: PlanRequest, on: str | None, nodes: int | None, analyze: bool
) -> Explanation | ClusterExplanation:
    if on is not None and planning.on is None:
        return explain_cluster(task, on, planning, nodes=nodes)
    if on is not None:
        return explain_absent(task, on, planning)
    explanation = find_plan(task, planning).explanation
    assert explanation is not None
    if analyze and explanation.verdict == "NO":  # running it would take the memory that it must not
        notice = "nothing was measured: no plan fits the budget"
        return dataclasses.replace(explanation, notices=(*explanation.notices, notice))
    if not analyze:
        return explanation
    planning.observer.on_phase("running the plan for some steps")
    return measured_beside(task, explanation)
