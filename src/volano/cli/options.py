"""The options that several commands share."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from volano.plan import Plan, parse_setting

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object as the last line; progress goes to stderr."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Import whatever code the folder names, if you know the folder."),
]
Code = Annotated[
    str | None,
    typer.Option(
        "--code", metavar="MODULE:NAME", help="Your own code that the folder names, to be imported."
    ),
]
DeviceName = Annotated[
    str | None,
    typer.Option("--device", help="Device, as torch names it; default: the accelerator, else cpu."),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="NAME",
        help="Code that was changed on purpose since the run began: objective, forward, collate, "
        "augment, model, optimizer, parameter_groups, schedule; may be given several times.",
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]

_PLAN = "Plan (how it is run; each pins a knob)"
Budget = Annotated[
    str | None,
    typer.Option(help="Memory of the device to stay within: 40GiB, 512MiB.", rich_help_panel=_PLAN),
]
Forbid = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KNOB=VALUE",
        help="Leave out this value of a knob; may be given several times.",
        rich_help_panel=_PLAN,
    ),
]

PlanFile = Annotated[
    Path | None, typer.Option("--plan", help="A plan.json to take as it is.", rich_help_panel=_PLAN)
]
NoPlan = Annotated[
    bool,
    typer.Option("--no-plan", help="Plain eager PyTorch, with your pins.", rich_help_panel=_PLAN),
]

_RANKS = "Several processes"
NumProcesses = Annotated[
    str,
    typer.Option(
        "--nproc",
        help="Processes that train together on this machine; gpu is one for each accelerator.",
        rich_help_panel=_RANKS,
    ),
]
MaxRestarts = Annotated[
    int,
    typer.Option(help="How often they are started again after a failure.", rich_help_panel=_RANKS),
]

_SAFETY = "Safety (kept by a resume)"
SaveEvery = Annotated[
    str | None,
    typer.Option(
        help="Time or steps between checkpoints: 60s, 500st; default 60s.", rich_help_panel=_SAFETY
    ),
]
SkipBadSteps = Annotated[
    int | None,
    typer.Option(
        help="Skip at most so many steps whose loss or gradient is not finite; default 0.",
        rich_help_panel=_SAFETY,
    ),
]


# Written down for their parameters, which ``cli.generated`` puts into commands.


def budget_options(device: DeviceName = None, forbid: Forbid = None, budget: Budget = None) -> None:
    """Declares the options of what a plan keeps to."""


def run_options(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/NAME-DATE-TIME.")
    ] = None,
    plan: PlanFile = None,
    no_plan: NoPlan = False,
    nproc: NumProcesses = "1",
    max_restarts: MaxRestarts = 0,
    save_every: SaveEvery = None,
    skip_bad_steps: SkipBadSteps = None,
) -> None:
    """Declares the options of how a run is made."""


def shared_options(json: Json = False, debug: Debug = False) -> None:
    """Declares the options of how every command prints."""


# Knobs of a plan that a person may pin, as plan.py declares them.
KNOBS = {field.name: field for field in dataclasses.fields(Plan) if field.metadata["help"]}


def plan_options() -> list[inspect.Parameter]:
    """Returns the parameters of a command that say how a training is to be planned."""
    device, *others = inspect.signature(budget_options, eval_str=True).parameters.values()
    return [device, *map(_knob_option, KNOBS.values()), *others]


def _knob_option(field: dataclasses.Field[Any]) -> inspect.Parameter:
    flag, kind = f"--{field.name.replace('_', '-')}", str
    if field.metadata["choices"] == (False, True):
        flag, kind = f"{flag}/--no-{field.name.replace('_', '-')}", bool
    elif field.metadata["least"] is not None:
        kind = int
    info = typer.Option(flag, help=field.metadata["help"], rich_help_panel=_PLAN)
    hint = Annotated[kind | None, info]
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint
    )


def forbidden(settings: list[str]) -> dict[str, tuple[Any, ...]]:
    """Reads ``["precision=bf16", ...]`` as knob -> rejected values.

    Raises:
        UsageError: one is not of that form, or no plan has it.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for knob, value in map(parse_setting, settings):
        found[knob] = (*found.get(knob, ()), value)
    return found
