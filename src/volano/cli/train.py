"""``volano train`` and ``volano resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volano.cli import options as opt
from volano.cli import output
from volano.cli.applications import APPLICATIONS, application_of
from volano.errors import UsageError

_TIME, _IMAGE, _TEXT, _VIDEO = "How long", "Image application", "Text application", "Video application"
_PICTURES = "Image and video applications"


def train(
    what: Annotated[
        str, typer.Argument(metavar="|".join([*APPLICATIONS, "MODULE:TASK"]), help="An application, or your own task.")
    ],
    path: Annotated[
        Path | None,
        typer.Argument(
            help="image: class folders, IDX files or a .csv/.parquet; text: files and folders of text, .jsonl or "
            ".parquet; video: a folder of clips. None: an embedded sample."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME-DATE-TIME.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation (applications).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per step (applications).")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for the whole command.", rich_help_panel=_TIME)] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.", rich_help_panel=_TIME)] = None,
    size: Annotated[str | None, typer.Option(help="thin, base or wide.", rich_help_panel=_IMAGE)] = None,
    model: Annotated[
        str | None, typer.Option(help="MODULE:FUNCTION that makes your own model.", rich_help_panel=_IMAGE)
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels to decode to.", rich_help_panel=_PICTURES)] = None,
    flip: Annotated[str | None, typer.Option(help="auto, yes or no: mirror them.", rich_help_panel=_PICTURES)] = None,
    image_cache: Annotated[
        Path | None,
        typer.Option(help="Folder for decoded images that do not fit into memory.", rich_help_panel=_IMAGE),
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Blocks of the language model.", rich_help_panel=_TEXT)] = None,
    context: Annotated[int | None, typer.Option(help="Tokens seen at once.", rich_help_panel=_TEXT)] = None,
    classify: Annotated[
        bool | None, typer.Option("--classify", help="Tell classes of labelled texts apart.", rich_help_panel=_TEXT)
    ] = None,
    network: Annotated[str | None, typer.Option(help="unet or transformer.", rich_help_panel=_VIDEO)] = None,
    frames: Annotated[int | None, typer.Option(help="Frames that the model sees; 16.", rich_help_panel=_VIDEO)] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second to decode to.", rich_help_panel=_VIDEO)] = None,
    device: opt.DeviceName = None,
    precision: opt.Precision = None,
    memory_format: opt.MemoryFormat = None,
    compile: opt.Compile = None,
    micro_batch: opt.MicroBatch = None,
    threads: opt.Threads = None,
    feed: opt.FeedName = None,
    workers: opt.Workers = None,
    sharding: opt.Sharding = None,
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
    """
    from volano.api.processes import Processes, follow, is_follower

    processes = Processes(num=nproc, max_restarts=max_restarts, debug=debug)
    if is_follower():
        follow()
        return 0
    knobs = opt.given(
        precision=precision,
        memory_format=memory_format,
        compile=compile,
        micro_batch=micro_batch,
        threads=threads,
        feed=feed,
        workers=workers,
        sharding=sharding,
    )
    dials = opt.given(
        seed=seed,
        batch_size=batch_size,
        minutes=minutes,
        epochs=epochs,
        size=size,
        model=model,
        image_size=image_size,
        image_cache=image_cache,
        flip=flip,
        depth=depth,
        context=context,
        classify=classify,
        network=network,
        frames=frames,
        fps=fps,
    )
    common: dict[str, Any] = {"device": device, "out": out, "pins": knobs, "processes": processes}
    common["safety"] = _safety(save_every, skip_bad_steps)
    if what in APPLICATIONS:
        _refuse(dials.keys() - APPLICATIONS[what].DIALS, dials, f"the {what} application")
        return APPLICATIONS[what].train(path, as_json=json, **common, **dials)
    if ":" not in what:
        raise UsageError(
            "What to train is an application or a task of your own",
            got=repr(what),
            remedy=f"Write {', '.join(APPLICATIONS)}, or module:task",
        )
    given = opt.given(path=path) | dials
    _refuse(given.keys(), given, "a task of your own")
    from volano import api

    return _print_run(api.train(what, **common), as_json=json)


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
    from volano.api.processes import Processes, follow, is_follower

    processes = Processes(num=nproc, max_restarts=max_restarts, debug=debug)
    if is_follower():
        follow()
        return 0
    changes = opt.given(save_every=save_every, skip_bad_steps=skip_bad_steps)
    if changes:
        from volano.api.tasks import change_safety

        change_safety(run, **changes)
    application = application_of(run)
    if application is not None:
        return application.resume(run, as_json=json, processes=processes)
    return _print_run(api.resume(run, processes=processes), as_json=json)


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


def _refuse(names: Any, given: dict[str, Any], what: str) -> None:
    """Raises UsageError for options that do not belong to what is trained: none is ignored in silence."""
    for name in sorted(names):
        option = "PATH" if name == "path" else f"--{name.replace('_', '-')}"
        owners = [f"the {owner} application" for owner, module in APPLICATIONS.items() if name in module.DIALS]
        raise UsageError(
            f"{option} is a dial of {' and '.join(owners) or 'the applications'}",
            got=f"{option} {given[name]} with {what}",
            remedy="Say it in the task" if what == "a task of your own" else "Leave it out",
        )
