"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line; progress goes to stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
DeviceName = Annotated[
    str | None, typer.Option("--device", help="As torch writes it; default: the accelerator, else cpu.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]

_PLAN = "Plan (how; pins a knob)"
Precision = Annotated[str | None, typer.Option(help="fp32, tf32, bf16 or fp16.", rich_help_panel=_PLAN)]
MemoryFormat = Annotated[str | None, typer.Option(help="contiguous or channels_last.", rich_help_panel=_PLAN)]
Compile = Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch.compile.", rich_help_panel=_PLAN)]
MicroBatch = Annotated[int | None, typer.Option(help="Examples per forward and backward pass.", rich_help_panel=_PLAN)]
Threads = Annotated[int | None, typer.Option(help="Threads of the host's arithmetic.", rich_help_panel=_PLAN)]
FeedName = Annotated[str | None, typer.Option("--feed", help="resident or ring.", rich_help_panel=_PLAN)]
Workers = Annotated[int | None, typer.Option(help="Processes that make batches (ring).", rich_help_panel=_PLAN)]
Sharding = Annotated[
    str | None, typer.Option(help="none (each rank a whole copy) or full (FSDP2).", rich_help_panel=_PLAN)
]

_RANKS = "Several processes"
NumProcesses = Annotated[
    int, typer.Option("--nproc", help="Processes that train together on this machine.", rich_help_panel=_RANKS)
]
MaxRestarts = Annotated[int, typer.Option(help="How often they start again after a failure.", rich_help_panel=_RANKS)]

_SAFETY = "Safety (kept by a resume)"
SaveEvery = Annotated[
    str | None,
    typer.Option(help="Time or steps between checkpoints: 60s, 500st; default 60s.", rich_help_panel=_SAFETY),
]
SkipBadSteps = Annotated[
    int | None,
    typer.Option(
        help="Steps with a loss or gradient that is not finite to leave out, at most; default 0.",
        rich_help_panel=_SAFETY,
    ),
]


def given(**values: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in values.items() if value is not None}
