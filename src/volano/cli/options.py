"""Options that several commands share."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from volano.plan import parse_setting

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object as the last line; progress goes to stderr."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
DeviceName = Annotated[
    str | None,
    typer.Option("--device", help="As torch writes it; default: the accelerator, else cpu."),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]

_PLAN = "Plan (how; pins a knob)"
Precision = Annotated[
    str | None, typer.Option(help="fp32, tf32, bf16 or fp16.", rich_help_panel=_PLAN)
]
MemoryFormat = Annotated[
    str | None, typer.Option(help="contiguous or channels_last.", rich_help_panel=_PLAN)
]
Compile = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="torch.compile.", rich_help_panel=_PLAN),
]
MicroBatch = Annotated[
    int | None, typer.Option(help="Examples per forward and backward pass.", rich_help_panel=_PLAN)
]
Threads = Annotated[
    int | None, typer.Option(help="Threads of the host's arithmetic.", rich_help_panel=_PLAN)
]
FeedName = Annotated[
    str | None, typer.Option("--feed", help="resident or ring.", rich_help_panel=_PLAN)
]
Workers = Annotated[
    int | None, typer.Option(help="Processes that make batches (ring).", rich_help_panel=_PLAN)
]
Sharding = Annotated[
    str | None,
    typer.Option(help="none (each rank a whole copy) or full (FSDP2).", rich_help_panel=_PLAN),
]
Budget = Annotated[
    str | None,
    typer.Option(help="Memory of the device to stay within: 40GiB, 512MiB.", rich_help_panel=_PLAN),
]
Forbid = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KNOB=VALUE",
        help="Not this value of a knob; may be given several times.",
        rich_help_panel=_PLAN,
    ),
]

Recompute = Annotated[
    str | None,
    typer.Option(help="none or blocks: compute these again to save memory.", rich_help_panel=_PLAN),
]
Offload = Annotated[
    str | None,
    typer.Option(
        help="none, activations, optimizer or all: to host memory.", rich_help_panel=_PLAN
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
    int,
    typer.Option(
        "--nproc", help="Processes that train together on this machine.", rich_help_panel=_RANKS
    ),
]
MaxRestarts = Annotated[
    int, typer.Option(help="How often they start again after a failure.", rich_help_panel=_RANKS)
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
        help="Steps with a loss or gradient that is not finite to leave out, at most; default 0.",
        rich_help_panel=_SAFETY,
    ),
]


# Written down for their parameters, which ``cli.generated`` puts into commands.


def plan_options(
    device: DeviceName = None,
    precision: Precision = None,
    memory_format: MemoryFormat = None,
    compile: Compile = None,
    micro_batch: MicroBatch = None,
    threads: Threads = None,
    feed: FeedName = None,
    workers: Workers = None,
    sharding: Sharding = None,
    recompute: Recompute = None,
    offload: Offload = None,
    forbid: Forbid = None,
    budget: Budget = None,
) -> None:
    """How a training is to be planned."""


def run_options(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/NAME-DATE-TIME.")
    ] = None,
    plan: PlanFile = None,
    no_plan: NoPlan = False,
    nproc: NumProcesses = 1,
    max_restarts: MaxRestarts = 0,
    save_every: SaveEvery = None,
    skip_bad_steps: SkipBadSteps = None,
) -> None:
    """How a run is made."""


def shared_options(json: Json = False, debug: Debug = False) -> None:
    """How every command prints."""


KNOBS = tuple(
    name
    for name in inspect.signature(plan_options).parameters
    if name not in ("device", "forbid", "budget")
)


def forbidden(settings: list[str]) -> dict[str, tuple[Any, ...]]:
    """``["precision=bf16", ...]`` as knob -> values that are not to be taken.

    Raises:
        UsageError: one is not of that form, or no plan has it.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for knob, value in map(parse_setting, settings):
        found[knob] = (*found.get(knob, ()), value)
    return found
