"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volano.plan import parse_setting

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line; progress goes to stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
DeviceName = Annotated[
    str | None, typer.Option("--device", help="As torch writes it; default: the accelerator, else cpu.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]

_TIME, _IMAGE, _TEXT, _VIDEO = "How long", "Image application", "Text application", "Video application"
_PICTURES = "Image and video applications"
Seed = Annotated[int | None, typer.Option("--seed", help="Of weights, order and augmentation (applications).")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Examples per step (applications).")]
Minutes = Annotated[float | None, typer.Option(help="Time for the whole command.", rich_help_panel=_TIME)]
Epochs = Annotated[float | None, typer.Option(help="Passes over the data.", rich_help_panel=_TIME)]
Size = Annotated[str | None, typer.Option(help="thin, base or wide.", rich_help_panel=_IMAGE)]
ModelReference = Annotated[
    str | None, typer.Option(help="MODULE:FUNCTION that makes your own model.", rich_help_panel=_IMAGE)
]
ImageSize = Annotated[int | None, typer.Option(help="Pixels to decode to.", rich_help_panel=_PICTURES)]
Flip = Annotated[str | None, typer.Option(help="auto, yes or no: mirror them.", rich_help_panel=_PICTURES)]
ImageCache = Annotated[
    Path | None, typer.Option(help="Folder for decoded images that do not fit into memory.", rich_help_panel=_IMAGE)
]
Depth = Annotated[int | None, typer.Option(help="Blocks of the language model.", rich_help_panel=_TEXT)]
Context = Annotated[int | None, typer.Option(help="Tokens seen at once.", rich_help_panel=_TEXT)]
Classify = Annotated[
    bool | None, typer.Option("--classify", help="Tell classes of labelled texts apart.", rich_help_panel=_TEXT)
]
Network = Annotated[str | None, typer.Option(help="unet or transformer.", rich_help_panel=_VIDEO)]
Frames = Annotated[int | None, typer.Option(help="Frames that the model sees; 16.", rich_help_panel=_VIDEO)]
FramesPerSecond = Annotated[float | None, typer.Option(help="Frames a second to decode to.", rich_help_panel=_VIDEO)]
# Names of the parameters of a command that are options of an application.
OPTIONS = (
    "seed", "batch_size", "minutes", "epochs", "size", "model", "image_size", "image_cache", "flip", "depth", "context",
    "classify", "network", "frames", "fps",
)  # fmt: skip

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
Budget = Annotated[
    str | None, typer.Option(help="Memory of the device to stay within: 40GiB, 512MiB.", rich_help_panel=_PLAN)
]
Forbid = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KNOB=VALUE", help="Not this value of a knob; may be given several times.", rich_help_panel=_PLAN
    ),
]

Recompute = Annotated[
    str | None, typer.Option(help="none or blocks: compute these again to save memory.", rich_help_panel=_PLAN)
]
Offload = Annotated[
    str | None, typer.Option(help="none, activations, optimizer or all: to host memory.", rich_help_panel=_PLAN)
]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="A plan.json to take as it is.", rich_help_panel=_PLAN)]
NoPlan = Annotated[bool, typer.Option("--no-plan", help="Plain eager PyTorch, with your pins.", rich_help_panel=_PLAN)]

# Names of the parameters that pin a knob each.
KNOBS = (
    "precision", "memory_format", "compile", "micro_batch", "recompute", "offload", "threads", "feed", "workers",
    "sharding",
)  # fmt: skip

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


def picked(parameters: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Of a command's parameters (its ``locals()``) those of these names that were given."""
    return given(**{name: parameters[name] for name in names})


def forbidden(settings: list[str]) -> dict[str, tuple[Any, ...]]:
    """``["precision=bf16", ...]`` as knob -> values that are not to be taken.

    Raises:
        UsageError: one is not of that form, or no plan has it.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for knob, value in map(parse_setting, settings):
        found[knob] = (*found.get(knob, ()), value)
    return found
