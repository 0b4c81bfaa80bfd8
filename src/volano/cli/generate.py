"""``volano generate``: what a run's model makes up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volano.cli import options as opt
from volano.cli.applications import APPLICATIONS, act, application_of
from volano.errors import UsageError

_TEXT, _VIDEO = "Text application", "Video application"


def generate(
    run: opt.RunPath,
    seed: Annotated[int | None, typer.Option(help="Of the draws; the same seed gives the same result.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What to go on from.", rich_help_panel=_TEXT)] = None,
    tokens: Annotated[int | None, typer.Option(help="How many to write, at most.", rich_help_panel=_TEXT)] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest; default 0.8.", rich_help_panel=_TEXT)
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw among so many.", rich_help_panel=_TEXT)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the likeliest of this probability.", rich_help_panel=_TEXT)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder to write; default RUN/generated-1, -2, ...", rich_help_panel=_VIDEO),
    ] = None,
    clips: Annotated[int | None, typer.Option(help="How many; 16.", rich_help_panel=_VIDEO)] = None,
    steps: Annotated[int | None, typer.Option(help="From noise to pictures; 20.", rich_help_panel=_VIDEO)] = None,
    frames: Annotated[
        int | None, typer.Option(help="Of a clip; more than the model's window is a rollout.", rich_help_panel=_VIDEO)
    ] = None,
    first_frames: Annotated[
        Path | None, typer.Option(help="A clip or picture that goes on.", rich_help_panel=_VIDEO)
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="One of the run's classes.", rich_help_panel=_VIDEO)
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Towards the class; 1 is plain.", rich_help_panel=_VIDEO)
    ] = None,
    method: Annotated[str | None, typer.Option(help="euler or heun.", rich_help_panel=_VIDEO)] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of the files.", rich_help_panel=_VIDEO)] = None,
    device: opt.DeviceName = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read by cli.main
) -> int:
    """Make something new with a run's model: text as it is written, or clips as mp4, gif and a grid of frames.

    volano generate runs/text-1 --prompt "Once upon" --tokens 200

    volano generate runs/video-1 --clips 16
    """
    options = opt.given(
        seed=seed,
        prompt=prompt,
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        out=out,
        clips=clips,
        steps=steps,
        frames=frames,
        first_frames=first_frames,
        class_name=class_name,
        guidance=guidance,
        method=method,
        fps=fps,
    )
    _refuse(application_of(run), options)
    return act(run, "generate", "generate", device=device, as_json=json, **options)


def _refuse(application: Any, options: dict[str, Any]) -> None:
    """Raises UsageError for options that the run's application does not take: none is ignored in silence."""
    for name in sorted(options.keys() - getattr(application, "GENERATE_DIALS", options.keys())):
        owners = [owner for owner, module in APPLICATIONS.items() if name in getattr(module, "GENERATE_DIALS", ())]
        option = "--class" if name == "class_name" else f"--{name.replace('_', '-')}"
        raise UsageError(
            f"{option} is for runs of {' and '.join(owners)}", got=f"{option} {options[name]}", remedy="Leave it out"
        )
