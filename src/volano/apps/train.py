"""The stages of every application's training, once: read, fit to the time, plan, write, run, test,
report. What differs from application to application is behind :class:`Application`."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from volano.apps.application import Application, Fitted
from volano.apps.kinds import CLASSIFY, reference_to
from volano.apps.text.model_spec import CLASSES_GOAL
from volano.planner import NotPredictedError, PlanRequest
from volano.running.busy_cores import beside_others, threads_of
from volano.running.end_run import end_run, with_notices
from volano.running.processes import Processes, TrainingRequest, begin, check_processes, go_on
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import WRITING_SECONDS
from volano.running.train import check_unfinished
from volano.task import Task
from volano.training import Observer, Run, RunFolder, check_plan

# What comes at the end takes 1.3 s where loading takes 3, and half a second where it takes 1.2
# (docs/log.md).
_WRITING_BY_LOADING, _LEAST_WRITING_SECONDS = 0.6, 1.0
# What takes less was loaded before.
_LEAST_LOADING_SECONDS = 0.5


def train_application(
    application_type: type[Application],
    options: Any,
    settings: TrainingRequest,
    *,
    kind: str | None = None,
    started: float | None = None,
    more: Mapping[str, Any] | None = None,
) -> Run:
    """Trains an application, and tests it.

    Args:
        application_type: the class of the application.
        options: its options, with ``path`` and the length of the run.
        settings: the settings of the run.
        kind: the name by which another process finds the application; None is found out.
        started: see ``volano.train``.
        more: of a trial of a study, what the run's folder says of it.

    Returns:
        The run; ``metrics`` and ``seconds`` include the final test.

    Raises:
        VolanoError: as its subclasses say.
    """
    begun = time.perf_counter()
    started = begun if started is None else started
    observer, folder = settings.observer, RunFolder.reserve(settings.out, application_type.kind)
    limit = _time_limit(application_type, options, settings.planning, started, settings.processes)
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
        application, chosen = fitted.application, fitted.chosen
        task = application.kept_as_asked(application.task_for(fitted.num_steps))
        check_plan(task, chosen.plan)
        limit.check(task, chosen.plan)
        seconds["plan"] = time.perf_counter() - mark
        folder.make()
        chosen.write(folder)
        application.write(folder, scratch)
    for fault in application.faults:
        folder.append("quarantine.jsonl", {"set": application.data_name, **asdict(fault)})
    source = _source(kind or reference_to(application_type), options, fitted, more or {})
    keeping = application.about_keeping() if task.keep == "best" else ()
    notices = (*application.notices, *keeping, *chosen.reasons, *fitted.reasons)
    run = begin(
        task, chosen, folder, settings, source=source, notices=notices, length=fitted.length
    )
    return _finish(run, application, task, seconds, started, observer)


def resume_application(
    application_type: type[Application], run: str | Path, settings: TrainingRequest
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
    with folder.as_written():
        application = application_type.from_run(folder)
        task = application.task_of_run()
    seconds = {"data": time.perf_counter() - started}
    ended = go_on(task, folder, settings)
    return _finish(ended, application, task, seconds, started, settings.observer)


@contextlib.contextmanager
def task_to_plan(
    application_type: type[Application], options: Any, planning: PlanRequest
) -> Iterator[tuple[Task, PlanRequest, tuple[str, ...]]]:
    """Yields the task that :func:`train_application` would train, to be planned and not trained;
    the request with the steps that were timed to choose it; and what was chosen for a device that
    is not here, in words."""
    observer, started, quick = planning.observer, time.perf_counter(), planning.quick()
    here = dataclasses.replace(quick, on=None, is_raced=False)
    limits = [
        _time_limit(application_type, options, asked, started, None)
        for asked in ([here] if quick.on is None else [quick, here])
    ]
    with _scratch(application_type) as scratch:
        observer.on_phase(f"reading {options.path or 'the embedded sample'}")
        application = application_type.read(options, scratch)
        observer.on_phase(f"{application.origin}; choosing network and number of steps")
        fitted, said = _fitted_to_plan(application, limits)
        chosen = fitted.chosen
        if chosen.step is not None and planning.on is None:
            planning = dataclasses.replace(planning, timed={chosen.plan: chosen.step})
        yield fitted.application.task(fitted.num_steps), planning, said


CHOSEN_HERE = "Network, batch and number of steps are those of a run on this machine"


def _fitted_to_plan(
    application: Application, limits: Sequence[TimeLimit]
) -> tuple[Fitted, tuple[str, ...]]:
    """Returns the application that suits the time on the device that is planned for, and what was
    chosen for one that is not here.

    Args:
        application: the application, as it was read.
        limits: the time on this machine; before it, that on the device that is not here.
    """
    first, here = limits[0], limits[-1]
    on = first.planning.on
    if on is None:
        return _fit(application, here), ()
    # What stands on pretrained weights is chosen by passes through them, which nobody can make
    # there.
    if getattr(application.options, "from_", None) is None:
        with contextlib.suppress(NotPredictedError):
            fitted = _fit(application, first)
            reasons = "; ".join(fitted.reasons)
            return fitted, (f"Chosen for {on}, by steps as they are predicted there: {reasons}",)
    return _fit(application, here), (CHOSEN_HERE,)


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
        writing=_writing_seconds(time.perf_counter() - started),
        said=said,
        check=lambda task, plan: check_processes(task, plan, processes),
    )


def _writing_seconds(loading: float) -> float:
    """Returns the seconds of what comes at the end: on a slow or shared machine loading takes
    longer, and so does that."""
    if loading < _LEAST_LOADING_SECONDS:
        return WRITING_SECONDS
    return max(_LEAST_WRITING_SECONDS, _WRITING_BY_LOADING * loading)


def _source(kind: str, options: Any, fitted: Fitted, more: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a run's folder says of where the run comes from; ``more``: of its trial, if it
    trains one."""
    application = fitted.application
    if more:
        words = ["volano", "train", "--from", more["study"], "--trial", str(more["trial"])]
        again = {"words": words, "epochs": fitted.num_steps / application.steps_in(1.0)}
    else:
        again = _again(kind, application, options)
    return {
        "kind": kind,
        **application.goal(),
        "dials": application.resolved(fitted.num_steps),
        "minutes": options.minutes,
        "again": again,
        "origin": application.origin,
        **more,
    }


def _again(kind: str, application: Application, options: Any) -> dict[str, Any]:
    """The words of the command of such a training, without its length, and that length."""
    words = ["volano", "train", kind, *options.words(leave_out=("minutes", "epochs"))]
    words += [f"--{CLASSIFY}"] if application.goal().get("goal") == CLASSES_GOAL else []
    if options.epochs is not None:
        return {"words": words, "epochs": options.epochs}
    return {"words": words, "minutes": application.minutes_of(options)}


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
    above = () if near is None else near.absolute().parents
    parent = next((folder for folder in above if folder.is_dir()), None)
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
