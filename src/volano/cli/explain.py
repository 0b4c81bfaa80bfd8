"""``volano explain``: what the planner would choose, or has chosen for a run, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from volano.cli import options as opt
from volano.cli import output
from volano.cli.applications import APPLICATIONS, refuse
from volano.cli.explanation import print_explanation
from volano.errors import UsageError
from volano.plan import parse_bytes

if TYPE_CHECKING:
    from volano.plan.explanation import Explanation


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="|".join([*APPLICATIONS, "MODULE:TASK", "RUN"]),
            help="An application, your own task, or the folder of a run.",
        ),
    ],
    path: Annotated[
        Path | None, typer.Argument(help="Data of the application, as for train. None: an embedded sample.")
    ] = None,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Run the plan for some steps; set measured beside predicted.")
    ] = False,
    on: Annotated[
        str | None, typer.Option(help="A device that is not here, by name: predicts, runs nothing. H100, RTX 4090.")
    ] = None,
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
    budget: opt.Budget = None,
    forbid: opt.Forbid = None,
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
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> int:
    """Say how a task would be run and why, without training it: memory, time, and every candidate plan.

    volano explain image ./photos

    volano explain my_task:task --budget 8GiB --analyze

    volano explain text ./books --on H100

    volano explain runs/image-1               why that run's plan is what it is

    Exit code 1: nothing fits into the memory.
    """
    knobs, options = opt.picked(locals(), opt.KNOBS), opt.picked(locals(), opt.OPTIONS)
    wish = opt.given(device=device, on=on, analyze=analyze or None, budget=budget, forbid=forbid or None)
    if (Path(what) / "run.json").is_file():
        return _explain_run(Path(what), {**opt.given(path=path), **wish, **knobs, **options}, as_json=json)
    if budget is not None:
        wish["budget"] = parse_bytes(budget)
    if forbid:
        wish["forbid"] = opt.forbidden(forbid)
    return show(_explanation(what, path, options, {**wish, "pins": knobs}), as_json=json)


def show(explanation: Explanation, *, as_json: bool) -> int:
    """Prints an explanation. Returns the exit code: 1 where nothing fits."""
    record = explanation.to_json()
    if as_json:
        output.print_json(record)
    else:
        print_explanation(record)
    return 1 if explanation.verdict == "NO" else 0


def _explanation(what: str, path: Path | None, options: dict[str, Any], wish: dict[str, Any]) -> Explanation:
    from volano.api.explain import explain as explain_task
    from volano.api.explain import explain_application

    if what in APPLICATIONS:
        refuse(options.keys() - APPLICATIONS[what].OPTIONS, options, f"the {what} application")
        return explain_application(what, path, **wish, **options)
    if ":" not in what:
        raise UsageError(
            "What to explain is an application, a task of your own, or the folder of a run",
            got=repr(what),
            remedy=f"Write {', '.join(APPLICATIONS)}, module:task, or the folder that train printed",
        )
    given = opt.given(path=path) | options
    refuse(given.keys(), given, "a task of your own")
    return explain_task(what, **wish)


def _explain_run(run: Path, given: dict[str, Any], *, as_json: bool) -> int:
    """Shows what stands in a run's folder; there is nothing left to say of how."""
    for name, value in sorted(given.items()):
        option = "PATH" if name == "path" else f"--{name.replace('_', '-')}"
        raise UsageError(
            "A run's plan was made when it began", got=f"{option} {value} with {run}", remedy="Leave it out"
        )
    from volano.api.explain import explain_run

    return show(explain_run(run), as_json=as_json)
