"""Compares runs: figures, curves over each other, and the differences between their tasks and
plans."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.errors import UsageError
from volano.record.files import check_out
from volano.record.format import (
    NOTHING,
    bytes_text,
    capital,
    figure_text,
    more_is_better,
    plain_number,
    seconds_text,
    short,
    title_of,
)
from volano.record.json_values import mapping, number, numbers
from volano.record.read_run import RunRecord, read_run
from volano.report.charts import Chart, Line, draw_chart
from volano.report.curves import metric_chart, metric_names, points
from volano.report.experiment import setting_text
from volano.report.figures import device_name, in_order
from volano.report.page import Pieces, render, save_page

MOST_RUNS = 12  # more columns than this cannot be distinguished
_NUM_COLOURS = 6
_MOST_DOTS = 40  # evaluations; more of them run together
# Fields of task.json that tell less than the others together.
_NO_FIELD = frozenset({"schema_version", "digest"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """A name and a value for each run; ``best`` are the columns of the best figure."""

    name: str
    values: tuple[str, ...]
    best: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """A run's heading and its colour in the charts, 1 to 6; a second round of colours is dashed."""

    name: str
    status: str
    colour: int
    is_dashed: bool


def write_comparison(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Writes a page on two or more runs, ``comparison.html`` in the current folder unless another
    is named.

    Raises:
        UsageError: one of them is not a run's folder, or there are too many.
        RunError: the page cannot be written.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise UsageError(f"A comparison must have 2 to {MOST_RUNS} runs", got=len(runs))
    records = [read_run(run) for run in runs]
    if out is not None:
        check_out(Path(out))
    return save_page(
        render_comparison(records), Path(out) if out is not None else Path("comparison.html")
    )


def render_comparison(records: Sequence[RunRecord]) -> str:
    """Returns the page as HTML."""
    columns = _columns(records)
    pieces = Pieces(
        missing=[
            f"{column.name}: {text}"
            for column, r in zip(columns, records, strict=True)
            for text in r.missing
        ]
    )
    nothing: tuple[Any, ...] = ()
    pieces.add("figures", lambda: _figure_rows(records), otherwise=nothing)
    pieces.add("facts", lambda: _fact_rows(records), otherwise=nothing)
    pieces.add("charts", lambda: _charts(records, columns), otherwise=nothing)
    for name, read in (
        ("task", lambda record: _flat(record.task, _NO_FIELD)),
        ("plan", lambda record: _flat(record.plan, frozenset({"schema_version"}))),
        ("machine", _surroundings),
    ):
        pieces.add(name, functools.partial(_differing, records, read), otherwise=(0, nothing))
    return render("compare.html.j2", columns=columns, missing=pieces.missing, **pieces.found)


def _columns(records: Sequence[RunRecord]) -> list[Column]:
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        names = [str(record.path) for record in records]
    return [
        Column(
            name=name,
            status=record.status,
            colour=1 + place % _NUM_COLOURS,
            is_dashed=place >= _NUM_COLOURS,
        )
        for place, (name, record) in enumerate(zip(names, records, strict=True))
    ]


def _figure_rows(records: Sequence[RunRecord]) -> list[Row]:
    names = dict.fromkeys(str(name) for record in records for name in record.metrics)
    # A loss of one task says nothing about a loss of another, nor one on other data.
    bases = {(record.kind, record.task.get("name"), _validation_data(record)) for record in records}
    are_alike = len(bases) == 1 and _validation_data(records[0]) is not None
    rows = []
    for name in in_order(names):
        values = [number(record.metrics.get(name)) for record in records]
        known = [value for value in values if value is not None]
        if not known:
            continue
        direction = more_is_better(name)
        can_be_best = (
            are_alike
            and direction is not None
            and len(known) == len(values)
            and len(set(known)) > 1
        )
        bar = (max if direction else min)(known) if can_be_best else None
        best = tuple(n for n, value in enumerate(values) if can_be_best and value == bar)
        rows.append(
            Row(
                name=capital(title_of(name)),
                values=tuple(figure_text(name, record.metrics.get(name)) for record in records),
                best=best,
            )
        )
    return rows


def _validation_data(record: RunRecord) -> str | None:
    """Returns the digest of the data on which the figures were measured; None if the data has
    none."""
    digest = mapping(record.task.get("valid")).get("content_digest")
    return str(digest) if digest else None


def _fact_rows(records: Sequence[RunRecord]) -> list[Row]:
    def row(
        name: str, words: Callable[[float], str], of: Callable[[RunRecord], float | None]
    ) -> Row:
        values = map(of, records)
        return Row(name=name, values=tuple(NOTHING if v is None else words(v) for v in values))

    def total(record: RunRecord) -> float | None:
        return number(mapping(record.run.get("seconds")).get("total"))

    def most(record: RunRecord) -> float | None:
        return max(numbers([line.get("memory_bytes") for line in record.logs]), default=None)

    def middle(record: RunRecord) -> float | None:
        speeds = sorted(numbers([line.get("examples_per_second") for line in record.logs]))
        return float(round(speeds[len(speeds) // 2])) if speeds else None

    return [
        row("Steps", plain_number, lambda record: number(record.run.get("step"))),
        row("Time", seconds_text, total),
        row("Examples per second", plain_number, middle),
        row("Most memory", bytes_text, most),
        row(
            "Parameters",
            plain_number,
            lambda record: number(mapping(record.task.get("model")).get("num_parameters")),
        ),
    ]


def _charts(records: Sequence[RunRecord], columns: Sequence[Column]) -> list[Chart]:
    def lines(name: str) -> list[Line]:
        found = []
        for record, column in zip(records, columns, strict=True):
            is_valid = name.startswith("valid_")
            spots = points(record.evaluations if is_valid else record.logs, name)
            line = Line(
                label=column.name, points=spots, colour=column.colour, is_dashed=column.is_dashed,
                is_dotted=is_valid and len(spots) <= _MOST_DOTS,
            )  # fmt: skip
            found.append(line)
        return found

    charts = [
        draw_chart("Training loss", lines("loss"), may_be_log=True),
        draw_chart("Validation loss", lines("valid_loss"), may_be_log=True),
    ]
    for name in metric_names(records):
        charts.append(metric_chart(f"Validation {title_of(name)}", name, lines(f"valid_{name}")))
    title, speeds = "Throughput in examples per second", lines("examples_per_second")
    charts.append(draw_chart(title, speeds, from_zero=True))
    return [chart for chart in charts if chart is not None]


def _differing(
    records: Sequence[RunRecord], read: Callable[[RunRecord], Mapping[str, str]]
) -> tuple[int, list[Row]]:
    """Returns how many fields are the same in all runs, and a row for each of the others."""
    tables = [read(record) for record in records]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [
        Row(name=name, values=tuple(table.get(name, NOTHING) for table in tables)) for name in names
    ]
    differing = [row for row in rows if len(set(row.values)) > 1]
    return len(rows) - len(differing), differing


def _flat(value: Mapping[str, Any], without: frozenset[str], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, item in value.items():
        if name in without:
            continue
        title = f"{prefix}{str(name).replace('_', ' ')}"
        if isinstance(item, Mapping):
            found |= _flat(item, without, prefix=f"{title}: ")
        else:
            found[title] = short(setting_text(item), 300)
    return found


def _surroundings(record: RunRecord) -> dict[str, str]:
    versions = {
        str(name): str(version)
        for name, version in mapping(record.run.get("versions")).items()
        if version
    }
    machine = mapping(record.run.get("machine"))
    facts = {
        "device": device_name(record),
        "cores": machine.get("num_cores"),
        "threads": machine.get("num_threads"),
        "system": machine.get("system"),
        "python": machine.get("python"),
    }
    return {**{name: str(value) for name, value in facts.items() if value is not None}, **versions}
