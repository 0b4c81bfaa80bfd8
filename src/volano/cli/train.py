"""``volano train`` and ``volano resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volano.cli import options as opt
from volano.cli import output
from volano.cli.applications import APPLICATIONS, application_of, refuse
from volano.errors import UsageError
from volano.plan import parse_bytes


def train(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="|".join([*APPLICATIONS, "MODULE:TASK"]), help="An application, or your own task. None with --from."
        ),
    ] = None,
    path: Annotated[
        Path | None,
        typer.Argument(
            help="image: class folders, IDX files or a .csv/.parquet; text: files and folders of text, .jsonl or "
            ".parquet; video: a folder of clips. None: an embedded sample."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME-DATE-TIME.")] = None,
    study: Annotated[
        Path | None, typer.Option("--from", metavar="STUDY", help="Train a trial of a study from its start to its end.")
    ] = None,
    trial: Annotated[str | None, typer.Option(help="best (default) or its number, with --from.")] = None,
    seed: opt.Seed = None,
    batch_size: opt.BatchSize = None,
    minutes: opt.Minutes = None,
    epochs: opt.Epochs = None,
    size: opt.Size = None,
    model: opt.ModelReference = None,
    image_size: opt.ImageSize = None,
    flip: opt.Flip = None,
    image_cache: opt.ImageCache = None,
    depth: opt.Depth = None,
    context: opt.Context = None,
    classify: opt.Classify = None,
    network: opt.Network = None,
    frames: opt.Frames = None,
    fps: opt.FramesPerSecond = None,
    device: opt.DeviceName = None,
    precision: opt.Precision = None,
    memory_format: opt.MemoryFormat = None,
    compile: opt.Compile = None,
    micro_batch: opt.MicroBatch = None,
    threads: opt.Threads = None,
    feed: opt.FeedName = None,
    workers: opt.Workers = None,
    sharding: opt.Sharding = None,
    recompute: opt.Recompute = None,
    offload: opt.Offload = None,
    forbid: opt.Forbid = None,
    budget: opt.Budget = None,
    plan: opt.PlanFile = None,
    no_plan: opt.NoPlan = False,
    nproc: opt.NumProcesses = 1,
    max_restarts: opt.MaxRestarts = 0,
    save_every: opt.SaveEvery = None,
    skip_bad_steps: opt.SkipBadSteps = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> int:
    """Train an application, or a task of your own.

    volano train image                    the embedded sample

    volano train image ./photos --minutes 10

    volano train text ./books --minutes 10

    volano train video ./clips --minutes 10

    volano train my_task:task

    volano train image ./photos --nproc 2        the same training, by two processes together

    volano train --from runs/study-1             the best trial of a study
    """
    knobs, options = opt.picked(locals(), opt.KNOBS), opt.picked(locals(), opt.OPTIONS)
    from volano.running.processes import Processes, follow, is_follower

    processes = Processes(num=nproc, max_restarts=max_restarts, debug=debug)
    if is_follower():
        follow()
        return 0
    common: dict[str, Any] = {"out": out, "processes": processes, "safety": _safety(save_every, skip_bad_steps)}
    common |= _planning(device, knobs, forbid, budget, plan, no_plan=no_plan)
    if study is not None:
        refuse(options.keys() - {"epochs"}, options, "a trial of a study")
        return _train_trial(study, trial or "best", opt.given(what=what, path=path), epochs, common, as_json=json)
    if trial is not None:
        raise UsageError("--trial names a trial of a study", got=f"--trial {trial} without --from")
    if what in APPLICATIONS:
        refuse(options.keys() - APPLICATIONS[what].OPTIONS, options, f"the {what} application")
        return APPLICATIONS[what].train(path, as_json=json, **common, **options)
    if what is None or ":" not in what:
        raise UsageError(
            "What to train is an application or a task of your own",
            got=repr(what),
            remedy=f"Write {', '.join(APPLICATIONS)}, or module:task",
        )
    given = opt.given(path=path) | options
    refuse(given.keys(), given, "a task of your own")
    from volano import api

    return _print_run(api.train(what, **common), as_json=json)


def _train_trial(
    study: Path, trial: str, given: dict[str, Any], epochs: float | None, common: dict[str, Any], *, as_json: bool
) -> int:
    """Trains a trial; ``given``: what stands beside ``--from``: a build function, where the study does not tell."""
    build = given.pop("what", None)
    if given or (build is not None and ":" not in build):
        raise UsageError("--from names all that is trained", got=given.get("path", build), remedy="Leave it out")
    from volano import api
    from volano.apps.study_build import task_of_trial

    task, number = task_of_trial(study, trial, build=build, epochs=epochs)
    source = {"kind": "trial", "study": str(study.absolute()), "trial": number, "epochs": epochs}
    source = None if build else source
    return _print_run(api.train(task, source=source, **common), as_json=as_json)


def resume(
    run: opt.RunPath,
    nproc: opt.NumProcesses = 1,
    max_restarts: opt.MaxRestarts = 0,
    save_every: opt.SaveEvery = None,
    skip_bad_steps: opt.SkipBadSteps = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> int:
    """Go on with a run that was stopped or killed, from its last whole checkpoint, by any number of processes."""
    from volano import api
    from volano.running.processes import Processes, follow, is_follower

    processes = Processes(num=nproc, max_restarts=max_restarts, debug=debug)
    if is_follower():
        follow()
        return 0
    changes = opt.given(save_every=save_every, skip_bad_steps=skip_bad_steps)
    if changes:
        from volano.running.train import change_safety

        change_safety(run, **changes)
    application = application_of(run)
    if application is not None:
        return application.resume(run, as_json=json, processes=processes)
    return _print_run(api.resume(run, processes=processes), as_json=json)


def _planning(
    device: str | None,
    knobs: dict[str, Any],
    forbid: list[str] | None,
    budget: str | None,
    plan: Path | None,
    *,
    no_plan: bool,
) -> dict[str, Any]:
    """What the verbs take of how a run is to be planned."""
    if not no_plan:
        return opt.given(
            device=device,
            pins=knobs or None,
            forbid=opt.forbidden(forbid) if forbid else None,
            budget=None if budget is None else parse_bytes(budget),
            plan=plan,
        )
    if plan is not None or budget is not None or forbid:
        raise UsageError("--no-plan is plain eager PyTorch", got="it together with --plan, --budget or --forbid")
    from volano.device import Device
    from volano.plan import Plan

    return {"plan": Plan.baseline(Device(device).name).pin(**knobs)}


def _safety(save_every: str | None, skip_bad_steps: int | None) -> Any:
    from volano.training import Safety

    return Safety(**opt.given(save_every=save_every, skip_bad_steps=skip_bad_steps))


def _print_run(run: Any, *, as_json: bool) -> int:
    if as_json:
        output.print_json(output.run_record(run))
    else:
        output.say("  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in run.metrics.items()))
        if run.status == "stopped":
            output.say_unfinished(run)
        else:
            output.say_finished(run)
    return 0 if run.status == "finished" else 1
