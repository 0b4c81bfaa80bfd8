"""The curves of a run: loss, metrics, learning rate, throughput and memory over its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from volano.record.format import capital, is_share, title_of
from volano.record.json_values import number
from volano.record.read_run import RunRecord
from volano.report.charts import Chart, Line, Point, draw_chart

# Fields of a logged line that are not metrics of the objective.
_NO_METRIC = frozenset(
    {"step", "epoch", "loss", "lr", "spike", "examples_per_second", "memory_bytes"}
    | {"data_wait_share"}
)
_GIB, _MIB = 2.0**30, 2.0**20


def curves_of(record: RunRecord) -> list[Chart]:
    """Returns the charts, the loss first; a chart without data is left out."""
    skipped = _skipped_steps(record)
    loss = draw_chart(
        "Loss",
        [*_pair(record, "loss")],
        may_be_log=True,
        spikes=[
            (line["step"], line["loss"])
            for line in record.logs
            if line.get("spike") and _is_point(line, "loss")
        ],
        skipped=skipped,
    )
    metrics = [
        metric_chart(capital(title_of(name)), name, _pair(record, name))
        for name in metric_names([record])
    ]
    rate, speed = (points(record.logs, name) for name in ("lr", "examples_per_second"))
    rest = [
        draw_chart("Learning rate", [Line(label="learning rate", points=rate, colour=4)]),
        draw_chart(
            "Throughput", [Line(label="examples per second", points=speed, colour=3)],
            from_zero=True,
        ),
        _memory(record),
        _waiting(record),
    ]  # fmt: skip
    return [chart for chart in (loss, *metrics, *rest) if chart is not None]


def metric_chart(title: str, name: str, lines: Sequence[Line]) -> Chart | None:
    """Returns a chart of one of the objective's metrics, shares of 1 in percent."""
    if not is_share(name):
        return draw_chart(title, lines)
    percent = [
        dataclasses.replace(line, points=[(x, 100 * y) for x, y in line.points]) for line in lines
    ]
    return draw_chart(title, percent, unit=" %")


def metric_names(records: Sequence[RunRecord]) -> list[str]:
    """Returns the objective's metrics, in the order in which they were logged; runs share them."""
    names: dict[str, None] = {}
    for record in records:
        for line in (*record.logs, *record.evaluations):
            names.update(dict.fromkeys(str(name).removeprefix("valid_") for name in line))
    return [name for name in names if name not in _NO_METRIC]


def points(lines: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """Returns (step, value) for each line that has both, in the order of the steps."""
    return sorted(
        (float(line["step"]), float(line[name])) for line in lines if _is_point(line, name)
    )


def _pair(record: RunRecord, name: str) -> list[Line]:
    evaluations = points(record.evaluations, f"valid_{name}")
    return [
        Line(label="training", points=points(record.logs, name), colour=1),
        Line(label="validation", points=evaluations, colour=2, is_dotted=len(evaluations) <= 40),
    ]


def _memory(record: RunRecord) -> Chart | None:
    found = points(record.logs, "memory_bytes")
    scale, unit = (_GIB, " GiB") if found and max(y for _, y in found) >= _GIB else (_MIB, " MiB")
    line = Line(label="memory in use", points=[(x, y / scale) for x, y in found], colour=5)
    return draw_chart("Memory", [line], unit=unit, from_zero=True)


def _waiting(record: RunRecord) -> Chart | None:
    """Returns the share of time spent waiting for data, if it is one percent or more."""
    found = [(x, 100 * y) for x, y in points(record.logs, "data_wait_share")]
    if not found or max(y for _, y in found) < 1.0:
        return None
    line = Line(label="of the time", points=found, colour=6)
    return draw_chart("Waiting for data", [line], unit=" %", from_zero=True)


def _skipped_steps(record: RunRecord) -> list[float]:
    found = [number(line.get("step")) for line in record.numerics]
    return [step for step in found if step is not None]


def _is_point(line: Mapping[str, Any], name: str) -> bool:
    return number(line.get("step")) is not None and number(line.get(name)) is not None
