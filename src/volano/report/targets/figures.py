"""The report on the scores of labels and of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volano.record.format import NOTHING, figure_text, plain_number, share_text
from volano.record.json_values import mapping, number, numbers, sequence
from volano.record.read_run import RunRecord
from volano.report.classification import hardest_rows

_MOST_ROWS = 40
_MOST_PLOTS = 6
_SIDE = 1000.0  # of a plot, in units of its own


@dataclass(frozen=True, kw_only=True)
class TargetRow:
    """A label or a number: its name, its figures in words, and the length of its bar in percent, or
    None if it has none."""

    name: str
    figures: tuple[str, ...]
    percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The predicted numbers over the true ones: points in a square of 1,000 units, the ends of the
    line on which both are equal, and the least and the largest number."""

    name: str
    points: tuple[tuple[float, float], ...]
    low: str
    high: str


@dataclass(frozen=True, kw_only=True)
class TargetFigures:
    """The figures that the section shows: a table, plots of numbers, and the figures by which
    several trainings were compared."""

    title: str
    num_examples: str
    columns: tuple[str, ...]
    rows: tuple[TargetRow, ...]
    num_left_out: int
    plots: tuple[Plot, ...]
    candidates: tuple[tuple[str, str, bool], ...]


def targets_of(record: RunRecord) -> TargetFigures | None:
    """Returns the section of labels or numbers, or None if there are no scores of them.

    Raises:
        ValueError: the scores contradict themselves.
    """
    scores = record.scores
    labels, own = mapping(scores.get("per_label")), mapping(scores.get("per_number"))
    if not labels and not own:
        return None
    common: dict[str, Any] = {
        "num_examples": figure_text("num_examples", scores.get("num_examples")),
        "candidates": _candidates(record),
    }
    if labels:
        rows, num_left_out = _label_rows(labels)
        columns = ("Label", "Examples", "Average precision", "Precision", "Recall", "F1")
        return TargetFigures(
            title="Each label", columns=columns, rows=rows, num_left_out=num_left_out, plots=(),
            **common,
        )  # fmt: skip
    columns = ("Number", "MAE", "RMSE", "R²", "MAE of always the mean")
    figures = ("mae", "rmse", "r2", "baseline_mae")
    rows = tuple(
        TargetRow(name=str(name), figures=tuple(_plain(mapping(row).get(one)) for one in figures))
        for name, row in list(own.items())[:_MOST_ROWS]
    )
    plots = tuple(
        _plot(str(name), mapping(row).get("pairs")) for name, row in list(own.items())[:_MOST_PLOTS]
    )
    return TargetFigures(
        title="Each number", columns=columns, rows=rows, num_left_out=len(own) - len(rows),
        plots=plots, **common,
    )  # fmt: skip


def _label_rows(labels: Mapping[str, Any]) -> tuple[tuple[TargetRow, ...], int]:
    """Returns the rows in the order of the labels, or the hardest of them if there are many; and
    how many are left out."""
    kept, num_left_out = hardest_rows(labels, "average_precision")
    shares = ("average_precision", "precision", "recall", "f1")
    rows = tuple(
        TargetRow(
            name=name,
            figures=(
                figure_text("support", row.get("support")),
                *(share_text(row.get(one)) for one in shares),
            ),
            percent=round(100 * (number(row.get("average_precision")) or 0.0), 2),
        )
        for name, row in kept
    )
    return rows, num_left_out


def _plot(name: str, pairs: Any) -> Plot:
    found = [numbers(sequence(pair)) for pair in sequence(pairs)]
    known = [(pair[0], pair[1]) for pair in found if len(pair) == 2]
    if not known:
        raise ValueError(f"eval-test.json: no pairs of true and predicted numbers of {name}")
    low = min(min(pair) for pair in known)
    high = max(max(pair) for pair in known)
    scale = _SIDE / ((high - low) or 1.0)
    points = tuple(
        (round((true - low) * scale, 1), round(_SIDE - (predicted - low) * scale, 1))
        for true, predicted in known
    )
    return Plot(name=name, points=points, low=plain_number(low), high=plain_number(high))


def _candidates(record: RunRecord) -> tuple[tuple[str, str, bool], ...]:
    kept = record.scores.get("kept")
    return tuple(
        (str(name), _plain(value), name == kept)
        for name, value in mapping(record.scores.get("candidates")).items()
    )


def _plain(value: Any) -> str:
    figure = number(value)
    return NOTHING if figure is None else plain_number(figure)
