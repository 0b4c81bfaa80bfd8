"""Trains, resumes and uses what a person names: a task of one's own or an application."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volano.device import repeatable_products
from volano.errors import UsageError
from volano.plan import Plan, parse_bytes
from volano.planner import PlanRequest
from volano.running.processes import Processes, TrainingRequest, follow, is_follower
from volano.running.references import as_task, load_reference, training_at_import
from volano.running.train import accept_code, kind_of, resume_task, train_task
from volano.running.trust import name_code, trust_folder
from volano.task import Task
from volano.training import Observer, Run, RunFolder, Safety, make_progress

if TYPE_CHECKING:
    from volano.apps.application import Application, TrainedModel

_OWN_KINDS = ("python", "reference", "trial")


def train(
    what: Task | str | type[Application],
    path: str | Path | None = None,
    *,
    plan: Plan | str | Path | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    pins: Mapping[str, Any] | None = None,
    forbid: Mapping[str, Any] | None = None,
    budget: int | str | None = None,
    deterministic: bool | None = None,
    safety: Safety | None = None,
    processes: Processes | None = None,
    observer: Observer | None = None,
    source: dict[str, Any] | None = None,
    started: float | None = None,
    **options: Any,
) -> Run:
    """Plans a training, then runs it. Under torchrun every rank calls this with the same arguments.

    Args:
        what: a Task; ``"module:name"`` of one, or of a function that returns one; or an
            application: ``"image"``, ``"text"``, ``"video"``, a subclass of ``volano.Application``,
            or ``"module:Class"`` of one.
        path: the path of an application's data; None is its embedded sample.
        plan: taken as it is, or the file of one; ``Plan.baseline()`` is plain eager. None lets the
            planner find one.
        device: the device as torch writes it; None is the accelerator, or the CPU without one.
        out: the folder of the run; None makes ``runs/NAME-DATE-TIME``.
        pins: knobs of the plan to set, for example ``{"precision": "bf16"}``.
        forbid: knobs with values not to take, for example ``{"compile": True, "precision": ("bf16",
            "fp16")}``.
        budget: the bytes that the training may hold on the device, or a text such as ``"6GiB"``;
            None is what is free there.
        deterministic: whether only operations are used that give the same bits each time, on
            accelerators too: the same as a pin of the plan's ``deterministic``.
        safety: the settings of saving, and of steps whose numbers are not finite.
        processes: the processes that train together on this machine, if torchrun has not started
            them.
        observer: the observer that hears of the run; None shows progress on standard error.
        source: the way in which another process can make a Task again; None says that only Python
            can.
        started: the time from which an application's ``minutes`` count, by ``time.perf_counter``;
            None is this call.
        options: the options of an application: ``minutes`` or ``epochs``, ``seed``, and its own;
            see ``volano.ImageOptions``, ``volano.TextOptions`` and ``volano.VideoOptions``.

    Returns:
        The run. An application's ``metrics`` and ``seconds`` include the final test.

    Raises:
        VolanoError: as its subclasses say.
    """
    if is_follower():
        return follow(what if isinstance(what, Task) else None)
    warning = training_at_import()
    if warning is not None:
        observer = observer or make_progress()
        observer.on_notice(warning)
    pins = {**(pins or {}), **({"deterministic": True} if deterministic else {})}
    planning = _request(device=device, pins=pins, forbid=forbid, budget=budget, plan=plan)
    settings = TrainingRequest.of(
        planning=planning, out=out, safety=safety, processes=processes, observer=observer
    )
    value, kind = named(what)
    with repeatable_products(planning.is_deterministic):
        if isinstance(value, Task):
            refuse_options({"path": path, **options})
            if kind is not None:
                source = {"kind": "reference", "reference": kind}
            return train_task(value, settings, source=source)
        from volano.apps.kinds import choose_application
        from volano.apps.train import train_application

        application, chosen = choose_application(value, {"path": path, **options})
        return train_application(application, chosen, settings, kind=kind, started=started)


def train_trial(
    study: str | Path,
    trial: str | int = "best",
    *,
    build: str | None = None,
    epochs: float | None = None,
    trust: bool = False,
    planning: Mapping[str, Any] | None = None,
    **how: Any,
) -> Run:
    """Trains a trial of a study from its start to its end, as a run of the study's application like
    any other; that of a build function as a task of a person's own.

    Args:
        study: the study's folder.
        trial: ``"best"``, or its number.
        build: ``"module:build"`` of the function with which the study was made, if it was one.
        epochs: another length than the trial had; of a study of an application.
        trust: whether code that the folder names may be imported.
        planning, how: the arguments of :func:`train` for how it is planned and run.
    """
    from volano.apps.kinds import application_class
    from volano.apps.study_build import application_of_trial, task_of_trial
    from volano.apps.train import train_application

    trust_folder(study, trust)
    planning = dict(planning or {})
    found = None if build else application_of_trial(study, trial, epochs=epochs)
    if found is None:
        task, number = task_of_trial(study, trial, build=build, epochs=epochs)
        source = {"kind": "trial", "study": str(Path(study).absolute()), "trial": number,
                  "epochs": epochs}  # fmt: skip
        return train(
            task, source={**source, "build": build} if build else source, **planning, **how
        )
    kind, options, more = found
    application = application_class(kind)
    own = kind if ":" in kind else None
    settings = TrainingRequest.of(planning=_request(**planning), **how)
    with repeatable_products(settings.planning.is_deterministic):
        return train_application(application, options, settings, kind=own, more=more)


def resume(
    run: str | Path,
    *,
    task: Task | None = None,
    safety: Safety | None = None,
    processes: Processes | None = None,
    observer: Observer | None = None,
    code: str | None = None,
    trust: bool = False,
    accept: Collection[str] = (),
) -> Run:
    """Resumes a run from its last whole checkpoint, or from its first step if it was killed
    before there was one, under the plan that it has. An application's run is tested at its end.

    Args:
        run: the run's folder.
        task: needed for a run that was started from Python with a Task object; it must be the same
            one.
        safety: None keeps the run's own.
        processes: the processes that continue it together; another number than before is fine.
        observer: the observer that hears of the run; None shows progress on standard error.
        code: ``"module:name"`` of the code that the folder names: a task or an application of your
            own, or a network. A folder may come from a stranger, so it is loaded only if you name
            the same, here or before in this process, or trust the folder.
        trust: whether code that the folder names may be imported, whichever it is.
        accept: the code that may be another than that with which the run began: ``"objective"``,
            ``"forward"``, ``"collate"``, ``"augment"``, ``"model"``, ``"optimizer"``,
            ``"parameter_groups"``, ``"schedule"``.

    Raises:
        UsageError: not a run's folder, it is finished, or ``task`` is missing.
        CheckpointError: no whole checkpoint, or the task has changed.
    """
    if is_follower():
        return follow(task)
    name_code(code)
    trust_folder(run, trust)
    settings = TrainingRequest.of(safety=safety, processes=processes, observer=observer)
    if accept:
        accept_code(run, [accept] if isinstance(accept, str) else accept)
    with repeatable_products(_is_deterministic(RunFolder.open(run))):
        if kind_of(run) in _OWN_KINDS:
            return resume_task(run, settings, task=task)
        from volano.apps.kinds import application_of_run
        from volano.apps.train import resume_application

        application = application_of_run(RunFolder.open(run), trust=trust)
        assert application is not None
        return resume_application(application, run, settings)


def _is_deterministic(run: RunFolder) -> bool:
    """Returns whether a run's plan is deterministic; False of a run that has none yet."""
    path = run.path / "plan.json"
    return path.is_file() and Plan.load(path).deterministic


def load(
    run: Run | str | Path,
    *,
    device: str | None = None,
    code: str | None = None,
    trust: bool = False,
) -> TrainedModel:
    """Loads what an application's run has trained, to be used.

    Args:
        run: a run that has ended, or its folder.
        device: the device as torch writes it; None is the accelerator, or the CPU without one.
        code: ``"module:name"`` of the code that the folder names, see ``volano.resume``.
        trust: whether code that the folder names may be imported; a run that this process has made
            is trusted.

    Returns:
        An object with ``module``, the ``nn.Module`` in evaluation mode on the device; ``classes``;
        ``evaluate(path)``; and what its application can do: ``predict(files, pictures or arrays)``,
        ``generate(...)``, ``export(format)``.

    Raises:
        UsageError: not a run's folder, or the run of a task of a person's own, whose weights are
            ``run.model``.
        CheckpointError: it has not ended.
    """
    from volano.apps.kinds import load as load_model

    name_code(code)
    is_own = isinstance(run, Run)
    return load_model(RunFolder.open(run.path if is_own else run), device, trust=trust or is_own)


def _request(
    *,
    plan: Plan | str | Path | None = None,
    device: str | None = None,
    pins: Mapping[str, Any] | None = None,
    forbid: Mapping[str, Any] | None = None,
    budget: int | str | None = None,
) -> PlanRequest:
    return PlanRequest(
        device=device,
        pins=pins or {},
        forbid=forbid or {},
        budget=parse_bytes(budget) if isinstance(budget, str) else budget,
        plan=plan,
    )


def named(what: Any) -> tuple[Task | str | type[Application], str | None]:
    """Finds out what is to be trained.

    Returns:
        A Task, or an application (its name, or its class); and the name by which another process
        can find it.

    Raises:
        UsageError: it is none of them.
    """
    if isinstance(what, Task):
        return what, None
    from volano.apps.kinds import APPLICATIONS, is_application

    if is_application(what):
        return what, what
    from volano.apps.application import Application

    name_code(what)
    value = load_reference(what) if isinstance(what, str) and ":" in what else what
    if isinstance(value, type) and issubclass(value, Application):
        return value, what if isinstance(what, str) else None
    if isinstance(what, str) and ":" in what:
        return as_task(value, what), what
    raise UsageError(
        "What is trained must be an application or a task of your own",
        got=repr(what),
        remedy=f"Say {', '.join(APPLICATIONS)}, a volano.Task, or module:name of one",
    )


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raises UsageError for options of applications that were given with a task: none is ignored
    in silence."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"`{name}` is an option of the applications only",
                got=f"{value!r} with a task of your own",
                remedy="Say it in the task",
            )
