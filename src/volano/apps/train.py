"""The stages of every application's training, once: read, fit to the time, plan, write, run, test,
report. What differs from application to application is behind :class:`Application`."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from volano.apps.application import Application, Fitted
from volano.apps.kinds import CLASSIFY, reference_to
from volano.apps.text.model_spec import CLASSES
from volano.planner import PlanRequest
from volano.running.busy_cores import beside_others, threads_of
from volano.running.checks import as_described
from volano.running.end_run import end_run, with_notices
from volano.running.processes import Processes, check_processes, execute
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import WRITING_SECONDS
from volano.running.train import check_unfinished, go_on, within_budget
from volano.task import Task
from volano.training import Observer, Run, RunFolder, Safety, check_plan, make_progress


def train_application(
    application_type: type[Application],
    options: Any,
    *,
    kind: str | None = None,
    planning: PlanRequest | None = None,
    out: str | Path | None = None,
    safety: Safety | None = None,
    processes: Processes | None = None,
    observer: Observer | None = None,
    started: float | None = None,
    more: Mapping[str, Any] | None = None,
) -> Run:
    """Trains an application, and tests it.

    Args:
        application_type: the class of the application.
        options: its options, with ``path`` and the length of the run.
        kind: the name by which another process finds the application; None is found out.
        planning, out, safety, processes, observer, started: see ``volano.train``.
        more: more of what a run's folder says of where the run comes from.

    Returns:
        The run; ``metrics`` and ``seconds`` include the final test.

    Raises:
        VolanoError: as its subclasses say.
    """
    begun = time.perf_counter()
    started = begun if started is None else started
    observer = observer or make_progress()
    folder = RunFolder.reserve(out, application_type.kind)
    planning = dataclasses.replace(planning or PlanRequest(), observer=observer)
    limit = _time_limit(application_type, options, planning, started, processes)
    with (
        _scratch(application_type, near=folder.path) as scratch,
        threads_of(limit.planning),  # of reading too: it looks at images through a network
    ):
        observer.on_phase(f"reading {options.path or 'the embedded sample'}")
        application = application_type.read(options, scratch)
        seconds = {"load": begun - started} if begun > started else {}
        seconds["data"] = time.perf_counter() - begun
        mark = time.perf_counter()
        observer.on_phase(f"{application.origin}; choosing network, plan and number of steps")
        fitted = _fit(application, limit)
        application, chosen, num_steps = fitted.application, fitted.chosen, fitted.num_steps
        task, plan = application.kept_as_asked(application.task_for(num_steps)), chosen.plan
        check_plan(task, plan)
        limit.check(task, plan)
        seconds["plan"] = time.perf_counter() - mark
        folder.make()
        chosen.write(folder)
        application.write(folder, scratch)
    for fault in application.faults:
        folder.append("quarantine.jsonl", {"set": application.data_name, **asdict(fault)})
    source = {
        "kind": kind or reference_to(application_type),
        **application.goal(),
        "dials": application.resolved(num_steps),
        "minutes": options.minutes,
        "again": _again(application_type, application, options, kind)
        if more is None
        else _again_from_study(application, more, num_steps),
        "origin": application.origin,
        **(more or {}),
    }
    run = execute(
        task,
        plan,
        folder,
        observer=observer,
        source=source,
        notices=(
            *application.notices,
            *(application.about_keeping() if task.keep == "best" else ()),
            *chosen.reasons,
            *fitted.reasons,
        ),
        safety=within_budget(safety, limit.planning.budget),
        processes=processes,
        may_split=chosen.may_split,
        length=fitted.length,
    )
    return _finish(run, application, task, seconds, started, observer)


def resume_application(
    application_type: type[Application],
    run: str | Path,
    *,
    safety: Safety | None = None,
    processes: Processes | None = None,
    observer: Observer | None = None,
) -> Run:
    """Resumes a run of an application, and tests it.

    Raises:
        UsageError: it is finished, or its data is no longer there.
        CheckpointError: no whole checkpoint, or the data has changed.
    """
    started = time.perf_counter()
    folder = RunFolder.open(run)
    if application_type.final_metric in (folder.read_json("run.json").get("metrics") or {}):
        check_unfinished(folder)  # a run that was interrupted in its final test has that left to do
    with as_described(folder):
        application = application_type.from_run(folder)
        task = application.task_of_run()
    seconds = {"data": time.perf_counter() - started}
    observer = observer or make_progress()
    ended = go_on(task, folder, observer=observer, safety=safety, processes=processes)
    return _finish(ended, application, task, seconds, started, observer)


@contextlib.contextmanager
def task_to_plan(
    application_type: type[Application], options: Any, planning: PlanRequest
) -> Iterator[tuple[Task, PlanRequest]]:
    """Yields the task that :func:`train_application` would train, to be planned and not trained;
    and the request with the steps that were timed to choose it."""
    limit = _time_limit(application_type, options, planning.quick(), time.perf_counter(), None)
    observer = planning.observer
    with _scratch(application_type) as scratch:
        observer.on_phase(f"reading {options.path or 'the embedded sample'}")
        application = application_type.read(options, scratch)
        observer.on_phase(f"{application.origin}; choosing network and number of steps")
        fitted = _fit(application, limit)
        chosen = fitted.chosen
        if chosen.step is not None:
            planning = dataclasses.replace(planning, timed=(chosen.plan, chosen.step))
        yield fitted.application.task(fitted.num_steps), planning


def _time_limit(
    application_type: type[Application],
    options: Any,
    planning: PlanRequest,
    started: float,
    processes: Processes | None,
) -> TimeLimit:
    world_size = (processes or Processes()).world_size
    said: tuple[str, ...] = ()
    if options.epochs is None:
        planning, said = beside_others(planning, world_size)
    return TimeLimit(
        planning=planning,
        started=started,
        seconds=60 * application_type.minutes_of(options),
        is_default=options.minutes is None,
        world_size=world_size,
        # Of a slow or shared machine loading takes longer, and so does what comes at the end.
        writing=max(WRITING_SECONDS, time.perf_counter() - started),
        said=said,
        check=lambda task, plan: check_processes(task, plan, processes),
    )


def _again(
    application_type: type[Application], application: Application, options: Any, kind: str | None
) -> dict[str, Any]:
    """The words of the command of such a training, without its length, and that length."""
    words = [*("volano", "train"), kind or reference_to(application_type)]
    words += options.words(leave_out=("minutes", "epochs"))
    words += [f"--{CLASSIFY}"] if application.goal().get("goal") == CLASSES else []
    if options.epochs is not None:
        return {"words": words, "epochs": options.epochs}
    return {"words": words, "minutes": application_type.minutes_of(options)}


def _again_from_study(
    application: Application, more: Mapping[str, Any], num_steps: int
) -> dict[str, Any]:
    words = ["volano", "train", "--from", more["study"], "--trial", str(more["trial"])]
    return {"words": words, "epochs": num_steps / application.steps_in(1.0)}


def _fit(application: Application, limit: TimeLimit) -> Fitted:
    epochs = application.options.epochs
    if application.options.tried is not None:  # network and length are those of the study
        num_steps = application.options.num_steps or application.steps_in(epochs)
        chosen = limit.choose_plan(application.task_for(num_steps))
        return Fitted(application=application, chosen=chosen, num_steps=num_steps)
    return application.fit(limit) if epochs is None else application.fit_epochs(limit, epochs)


@contextlib.contextmanager
def _scratch(
    application_type: type[Application], near: Path | None = None
) -> Iterator[Path | None]:
    """A folder for files that reading writes, ``near`` the run's folder, so that they can be moved
    by a rename."""
    if not application_type.needs_scratch:
        yield None
        return
    parent = (
        None
        if near is None
        else next(folder for folder in near.absolute().parents if folder.is_dir())
    )
    prefix = f"{'' if near is None else '.'}volano-{application_type.kind}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as scratch:
        yield Path(scratch)


def _finish(
    run: Run,
    application: Application,
    task: Task,
    seconds: dict[str, float],
    started: float,
    observer: Observer,
) -> Run:
    mark = time.perf_counter()
    if run.status == "finished":
        observer.on_phase("testing, and writing the report")
    finished = application.finish(run, task)
    run = with_notices(run, finished.notices, observer)
    metrics = {**run.metrics, **finished.metrics}
    is_held_out = getattr(application, "is_held_out", None)
    kept = {} if is_held_out is None else {"is_held_out": is_held_out}
    run, phases = end_run(
        run, observer, metrics=metrics, seconds=seconds, started=started, tested=mark,
        score=finished.score, **kept
    )  # fmt: skip
    return dataclasses.replace(
        run, metrics=metrics, seconds=phases, details={**finished.details, **kept}
    )
