"""Draws what ``volano bench`` found: the terminal's table as an SVG, and the gains as a PNG.

    volano bench --json | tail -1 > bench.json        (five minutes; let nothing else run)
    python docs/pictures/bench.py bench.json docs/pictures/bench

A second or two; writes bench.svg and bench.png.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

from explanation import svg_of
from rich.console import Console
from rich.table import Table

from volano.cli.bench import COLUMNS, RIGHT, bench_rows, notes_of

_PLAIN, _PLANNED = "#5c646d", "#1f6f94"  # of the report's page


def draw_table(record: dict[str, Any]) -> str:
    """The SVG."""
    console = Console(
        file=io.StringIO(), record=True, width=80, force_terminal=True, color_system="truecolor",
        highlight=False, markup=False, emoji=False,
    )  # fmt: skip
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for number in range(len(COLUMNS)):
        justify = "right" if number in RIGHT else "left"
        table.add_column(justify=justify, style="bold green" if number == 4 else None)
    table.add_row(*COLUMNS, style="dim")
    for row in bench_rows(record["rows"]):
        table.add_row(*row)
    console.print(table)
    for line in notes_of(record):
        console.print(line, style="dim")
    return svg_of(console, "volano bench")


def draw_gains(record: dict[str, Any], out: Path) -> None:
    """The PNG: a whole run, plain and planned with its start; the line is the spread of a step's
    gain."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = record["rows"]
    figure = Figure(figsize=(7.5, 0.8 + 0.62 * len(rows)), layout="constrained", dpi=160)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        gain = row["gain"]
        axes.barh(place - 0.19, 1.0, 0.34, color=_PLAIN, label="plain PyTorch" * (not place))
        axes.barh(
            place + 0.19, row["run_gain"], 0.34, color=_PLANNED, label="planned" * (not place)
        )
        axes.plot([gain["least"], gain["most"]], [place + 0.19] * 2, color="#1e2226", linewidth=1.5)
        end = max(row["run_gain"], gain["most"])
        axes.text(end * 1.04, place + 0.19, f"{row['run_gain']:.2f} x", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [f"{row['task']}, {row['device']}" for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")  # so that bars of 1 and of 20 can both be read
    axes.set_xlim(0.5, 2 * max(row["gain"]["most"] for row in rows))
    ticks = [one for one in (0.5, 1, 2, 5, 10, 20, 50, 100) if one < axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{one:g}" for one in ticks])
    axes.minorticks_off()
    axes.set_xlabel(
        f"speed of a whole run of {record['run_seconds']:.0f} s, start counted; "
        "line: a step, least to most"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(out)


def main() -> None:
    """Reads the figures, writes the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path, help="what `volano bench --json` printed")
    parser.add_argument("out", type=Path, help="the pictures, without a suffix")
    arguments = parser.parse_args()
    record = json.loads(arguments.record.read_text(encoding="utf-8"))
    arguments.out.with_suffix(".svg").write_text(draw_table(record), encoding="utf-8")
    draw_gains(record, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
