"""The command ``volano bench``: what Volano does on this machine."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from volano.cli import options as opt
from volano.cli import output
from volano.cli.show.explanation import print_table
from volano.cli.train import announce

_WIDTH = 80
COLUMNS = ("task", "device", "plain", "planned", "gain", "least-most", "start", "run")
RIGHT = (2, 3, 4, 5, 6, 7)
BENCH_HELP = """Compare plain PyTorch loops with planned ones on this machine, in turn.

volano bench                  the applications' embedded samples, and a pack
volano bench my_task:task     a task of your own

Let nothing else run meanwhile: both sides would be slower, and the spread wider.
"""


def bench(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:TASK", help="A task of your own; default: the applications."
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time for the whole command.")] = 5.0,
    device: opt.DeviceName = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read by cli.main
) -> int:
    """Compares plain loops with planned ones, and prints a table."""
    announce("bench")
    from volano.api.bench import bench as compare

    record = compare(what, minutes=minutes, device=device, on_progress=output.warn).to_json()
    if json:
        output.print_json(record)
    else:
        print_table(COLUMNS, bench_rows(record["rows"]), right=RIGHT)
        output.say(*notes_of(record))
    return 0 if record["rows"] else 1


def bench_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the cells of the table, one row for each comparison."""
    return [
        (
            textwrap.shorten(row["task"], 16, placeholder="..."),
            row["device"],
            f"{1e3 * row['plain_seconds']:.4g} ms",
            f"{1e3 * row['planned_seconds']:.4g} ms",
            f"{row['gain']['median']:.2f}x",
            f"{row['gain']['least']:.2f}-{row['gain']['most']:.2f}",
            f"{row['planning_seconds']:.1f} s",
            f"{row['run_gain']:.2f}x",
        )
        for row in rows
    ]


def notes_of(record: Mapping[str, Any]) -> list[str]:
    """Returns what stands below the table, in lines of at most 80 characters."""
    notes = [
        "plain, planned: a step, median over rounds in turn; gain with its least and most; start: "
        "planning, compiling and the first steps; run: a whole run of "
        f"{record['run_seconds']:.0f} s, the start counted.",
        *(f"{row['task']} on {row['device']}: {row['plan']}" for row in record["rows"]),
        *(f"left out: {text}" for text in record["left_out"]),
    ]
    return [line for note in notes for line in textwrap.wrap(note, _WIDTH, subsequent_indent="  ")]
