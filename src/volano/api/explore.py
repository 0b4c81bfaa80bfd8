"""Explores many configurations of a task: sampled, trained as packs and pruned together."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from volano.apps.application import Application
from volano.apps.kinds import is_application, reference_to
from volano.apps.options import check_names
from volano.apps.study_build import ApplicationBuild, application_build, build_of
from volano.device import Device
from volano.errors import UsageError, in_words
from volano.record.study_folder import STUDY, StudyFolder
from volano.report import write_study_report
from volano.running.references import load_reference
from volano.running.trust import name_code, trust_folder
from volano.study.importances import importances
from volano.study.observe import StudyObserver
from volano.study.search_space import SearchSpace
from volano.study.settings import StudySettings
from volano.study.study import Study
from volano.study.workers.trial_tasks import Build

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

_DEFAULTS: dict[str, Any] = {
    "trials": 64,
    "metric": "loss",
    "direction": "minimize",
    "seed": 0,
    "eta": 3,
}


def explore(
    build: Build | str,
    trials: int | None = None,
    *,
    path: str | Path | None = None,
    space: str | Path | SearchSpace | None = None,
    minutes: float | None = None,
    metric: str | None = None,
    direction: Literal["minimize", "maximize"] | None = None,
    out: str | Path | None = None,
    sampler: BaseSampler | None = None,
    storage: str | Path | BaseStorage | optuna.Study | None = None,
    seed: int | None = None,
    eta: int | None = None,
    rungs: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    nproc: int | None = None,
    ray: str | None = None,
    resume: bool = False,
    trust: bool = False,
    observer: StudyObserver | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Study:
    """Tries many configurations: samples them with Optuna, trains those of one structure as one
    program, and prunes them together by successive halving.

    Args:
        build: ``(trial) -> Task`` with an Optuna trial, or ``"module:build"`` of one. All tasks
            have the same data, and ``valid``. Called more than once for a trial, in the workers
            too. Or an application, as ``volano.train`` takes it: its recipe is varied, over
            ``space`` or its own.
        trials: the number of trials to ask for; 64.
        path: the path of an application's data; None is its embedded sample.
        space: for an application, a search space or the JSON or TOML file of one; None is its own.
        minutes: the time for the whole study, after which nothing new begins; None is no limit,
            for an application 10.
        metric: the metric of the evaluation, by which trials are compared; ``"loss"``, or what
            ``build.metric`` says.
        direction: ``"minimize"`` or ``"maximize"`` it; ``"minimize"``, or what ``build.direction``
            says.
        out: folder of the study; None makes ``runs/NAME-DATE-TIME``.
        sampler: the sampler of Optuna; None is that of an Optuna study in ``storage``, or else TPE,
            seeded with ``seed``.
        storage: URL, path of a journal, or an Optuna study; None is in memory with a journal in the
            folder.
        seed: the seed of the default sampler; 0.
        eta: the factor: at a rung one trial in so many continues; 3.
        rungs: the number of rungs, the end of the run among them; 1 prunes nothing; None takes them
            from ``trials``.
        device: the device as torch writes it; None is every accelerator, or the CPU.
        precision: ``"fp32"``, ``"tf32"`` or ``"bf16"``; fp32.
        nproc: processes that train packs on this machine; None is one for each accelerator, or as
            many as pay on the CPU's cores.
        ray: ``"local"``, ``"auto"`` or ``"host:port"``: the devices of a Ray cluster.
        resume: continues the study in ``out``, with the settings that it has if none are
            given.
        trust: whether code that the folder of a resumed study names may be imported.
        observer: the observer that hears of the study, and is closed at its end; None shows
            progress on standard error.
        on_progress: the function that hears what is done before the study begins.
        options: more of an application's.

    Raises:
        VolanoError: as its subclasses say. What was learned until then is in the folder, and can go
            on.
    """
    from volano.study.progress import make_study_progress
    from volano.study.run_study import run_study
    from volano.study.workers.make_executor import make_executor

    name_code(build)
    if resume and out is not None:
        trust_folder(out, trust)
    asked = {"minutes": minutes, "eta": eta, "rungs": rungs, "seed": seed, "device": device}
    asked["trials"] = _DEFAULTS["trials"] if trials is None else trials
    make, source = _build_and_source(
        build, out if resume else None, {"path": path, "space": space}, options,
        resume=resume, on_progress=on_progress, **_known(asked, asked),
    )  # fmt: skip
    if sampler is not None and not callable(getattr(sampler, "sample_relative", None)):
        raise UsageError(
            "`sampler` must be one of Optuna's, or one like them", got=type(sampler).__name__
        )
    if precision is not None and ray is None:
        Device(device).check_precision(precision)
    folder, before = _folder(out, getattr(make, "__name__", None) or "study", resume=resume)
    given = {"trials": trials, "metric": metric, "direction": direction, "seed": seed, "eta": eta}
    chosen = {**_DEFAULTS, **_own_goal(make, metric), **_known(before, given)}
    settings = StudySettings(minutes=minutes, rungs=rungs, **{**chosen, **_known(given, given)})
    where = _where(before, precision, device=device, nproc=nproc, ray=ray)
    with contextlib.closing(observer or make_study_progress()) as observer:
        executor = functools.partial(
            make_executor, make, num_trials=settings.trials, on_notice=observer.on_notice, **where
        )
        study = run_study(
            make, settings, folder, executor, storage=storage, sampler=sampler, observer=observer,
            facts={"source": source, "settings": where}, resume=resume,
        )  # fmt: skip
    try:
        write_study_report(study.folder, importances(study))
    except Exception as error:  # noqa: BLE001 - hours of a study are worth more than a page about them
        observer.on_notice(f"the report could not be written: {in_words(error)}")
    return study


def _build_and_source(
    build: Build | str,
    before: str | Path | None,
    data: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    resume: bool,
    **study: Any,
) -> tuple[Build, Mapping[str, Any]]:
    """Returns the function that ``build`` is or names, and how another process can make it again.

    Args:
        build: see :func:`explore`.
        before: the folder of the study that is resumed.
        data: ``path`` and ``space`` of an application's new study.
        options: more of an application's options.
        resume: whether a study is resumed.
        study: arguments of ``application_build`` about the study.
    """
    named = load_reference(build) if isinstance(build, str) and ":" in build else build
    is_own = isinstance(named, type) and issubclass(named, Application)
    if is_application(build) or is_own:
        if not resume:
            kind = build if isinstance(build, str) else reference_to(cast(Any, build))
            made = application_build(kind, data["path"], space=data["space"], **study, **options)
            return made, made.source()
        if before is not None:
            opened = Study.open(before)
            named = build = build_of(opened.facts.get("source"), opened.folder)
    check_names(options, inspect.signature(explore).parameters, "a study")
    if _known(data, data):
        raise UsageError(
            "`path` and `space` are for a new study of an application",
            got="one with a build function of your own, or with `resume`",
        )
    if isinstance(build, str):
        if not callable(named):
            raise UsageError(
                "module:build must name a function of a trial",
                got=f"{build}: {type(named).__name__}",
                remedy="Or say image, text or video",
            )
        return cast(Build, named), {"kind": "reference", "reference": build}
    if not callable(build):
        raise UsageError(
            "`build` must be a function build(trial) -> Task, 'module:build', or an application",
            got=type(build).__name__,
        )
    return build, build.source() if isinstance(build, ApplicationBuild) else {"kind": "python"}


def _folder(
    out: str | Path | None, name: str, *, resume: bool
) -> tuple[StudyFolder, Mapping[str, Any]]:
    """Returns the folder of a study, and the settings that a resumed one has."""
    if not resume:
        return StudyFolder.reserve(out, name), {}
    if out is None:
        raise UsageError(
            "A study to resume must have a folder",
            got="resume without out",
            remedy="Name it with `out`",
        )
    folder = StudyFolder.open(out)
    return folder, folder.read_json(STUDY).get("settings") or {}


def _where(before: Mapping[str, Any], precision: str | None, **where: Any) -> dict[str, Any]:
    """Returns where a study is trained, and in which precision: as asked, or as it was before."""
    kept = before.get("precision")
    if precision and kept and precision != kept:
        raise UsageError(
            "A resumed study must keep its precision", got=f"{precision}, and it has {kept}"
        )
    known = {"nproc": before.get("workers"), **before}  # as studies of version 0.1 call it
    found = {name: known.get(name) if value is None else value for name, value in where.items()}
    return {**found, "precision": precision or kept or "fp32"}


def _own_goal(build: Build, metric: str | None) -> dict[str, Any]:
    """Returns the metric and direction that a build declares; the direction holds for that metric
    alone."""
    own = {
        name: value
        for name in ("metric", "direction")
        if (value := getattr(build, name, None)) is not None
    }
    return own if metric is None or metric == own.get("metric") else {}


def _known(before: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: before[name] for name in names if before.get(name) is not None}
