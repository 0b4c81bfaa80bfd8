"""Draws a study as pictures: its trials across their parameters, and their values along the rungs.
Matplotlib draws them once in the colours of the light page and once in those of the dark one."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from volano.record.format import one_line, plain_number, plotted, short, title_of
from volano.record.json_values import number
from volano.record.study import StudyRecord, TrialResult, read_space

# The colours of the light and the dark page, as in style.css: ink, faint lines, the best trial,
# colours of the values.
_LIGHT = {
    "ink": "#1e2226",
    "soft": "#5c646d",
    "faint": "#cfccc5",
    "best": "#b94c24",
    "card": "#ffffff",
}
_DARK = {
    "ink": "#e6e8ea",
    "soft": "#a0a8b1",
    "faint": "#454c53",
    "best": "#ef8e63",
    "card": "#1c2024",
}
# The part of Matplotlib's viridis that stands out from the page: its yellow does not on white, nor
# its violet on black.
_SHADES = {_LIGHT["ink"]: (0.05, 0.86), _DARK["ink"]: (0.3, 1.0)}
_DOTS_PER_INCH = 150
MOST_AXES = 12  # more cannot be distinguished on a screen
_MOST_CHOICES = 16  # choices of a category that are written next to its axis
# If it is unknown whether a space is logarithmic, values that span this many times their smallest
# are drawn so.
_LOG_SPAN = 30.0
# Values this far beyond the worse quartile, in distances between quartiles, do not stretch colours
# and axes (Tukey's outer fence): for a trial that diverged it is enough to see that it did.
_FENCE = 3.0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The PNGs of a picture as data that stands in the page; sizes are pixels of the page. ``alt``
    says it in words."""

    light: str
    dark: str
    width: int
    height: int
    alt: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A vertical axis: ``places`` are the trials' heights from 0 to 1, None if a trial has no
    place on it."""

    title: str
    places: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False


# ---- across the parameters


def parallel_coordinates(record: StudyRecord) -> Picture | None:
    """Draws one line a trial; returns None if fewer than two trials have shown a value."""
    trials = [trial for trial in record.ranked if trial.finite_value is not None]
    names = record.parameters[:MOST_AXES]
    if len(trials) < 2 or not names:
        return None
    values = [trial.finite_value for trial in trials if trial.finite_value is not None]
    shown = _fenced(values, record.is_maximized)
    space = read_space(record.folder)
    axes = [parameter_axis(name, trials, space.get(name)) for name in names]
    axes.append(_numbers(title_of(record.metric), list(shown), is_log=_spans(shown)))
    left_out = len(record.parameters) - MOST_AXES
    return _drawn(
        lambda figure, look: _draw_parallel(figure, look, record, trials, axes),
        (max(6.0, min(16.0, 1.35 * len(axes) + 0.8)), 3.7),
        alt=f"{len(trials)} trials across {', '.join(short(name, 40) for name in names)} and "
        f"{record.metric}",
        notes=(f"{left_out} more parameters stand in the table",) if left_out > 0 else (),
    )


def parameter_axis(name: str, trials: Sequence[TrialResult], space: Any = None) -> Axis:
    """Returns the axis of a parameter: logarithmic if its space is, categories one above the
    other."""
    values = [trial.params.get(name) for trial in trials]
    has = [name in trial.params for trial in trials]
    figures = [number(value) for value in values]
    choices = (space or {}).get("choices")
    if isinstance(choices, list) or any(
        there and figure is None for there, figure in zip(has, figures, strict=True)
    ):
        return _categories(name, values, has, choices if isinstance(choices, list) else [])
    known = [figure for figure in figures if figure is not None]
    low, high = (number((space or {}).get(end)) for end in ("low", "high"))
    is_log = bool(space["log"]) if space and "log" in space else _spans(known)
    return _numbers(name, figures, is_log=is_log, low=low, high=high)


def _categories(
    name: str, values: Sequence[Any], has: Sequence[bool], choices: Sequence[Any]
) -> Axis:
    labels = [str(choice) for choice in choices]
    labels += sorted(
        {str(value) for value, there in zip(values, has, strict=True) if there} - set(labels)
    )
    rank = {label: place for place, label in enumerate(labels)}
    heights = [(place + 0.5) / len(labels) for place in range(len(labels))]
    step = -(-len(labels) // _MOST_CHOICES)
    return Axis(
        title=name,
        places=tuple(
            heights[rank[str(value)]] if there else None
            for value, there in zip(values, has, strict=True)
        ),
        ticks=tuple(zip(heights, labels, strict=True))[::step],
    )


def _numbers(
    name: str,
    values: Sequence[float | None],
    *,
    is_log: bool,
    low: float | None = None,
    high: float | None = None,
) -> Axis:
    known = [value for value in values if value is not None]
    low = min([*known, *([] if low is None else [low])])
    high = max([*known, *([] if high is None else [high])])
    is_log = is_log and low > 0
    scale: Callable[[float], float] = math.log if is_log else float
    reach = scale(high) - scale(low)

    def place(value: float) -> float:
        return (scale(value) - scale(low)) / reach if reach else 0.5

    return Axis(
        title=name,
        places=tuple(None if value is None else place(value) for value in values),
        ticks=tuple(
            (place(value), plain_number(value)) for value in _ticks(low, high, is_log=is_log)
        ),
        is_log=is_log,
    )


def _ticks(low: float, high: float, *, is_log: bool) -> list[float]:
    """Returns both ends, and round values between them that do not touch them."""
    if low == high:
        return [low]
    if is_log:
        inside = [
            10.0**power
            for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        ]
        inside = inside[:: -(-len(inside) // 6)] if inside else []
        room = 0.09 * math.log(high / low)
        inside = [v for v in inside if math.log(v / low) > room and math.log(high / v) > room]
    else:
        inside = [low + part * (high - low) / 4 for part in (1, 2, 3)]
        if low == int(low) and high == int(high):
            inside = [value for value in inside if value == int(value)]
    return [low, *inside, high]


def _spans(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_SPAN


def _fenced(values: Sequence[float], is_maximized: bool) -> list[float]:
    """Returns the values with the worst of them brought in to the fence."""
    ordered = sorted(values)
    lower, upper = (ordered[round(part * (len(ordered) - 1))] for part in (0.25, 0.75))
    reach = _FENCE * (upper - lower)
    if not reach:
        return list(values)
    return [
        max(value, lower - reach) if is_maximized else min(value, upper + reach) for value in values
    ]


def _draw_parallel(
    figure: Any,
    look: dict[str, str],
    record: StudyRecord,
    trials: Sequence[TrialResult],
    axes: Sequence[Axis],
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    plot = figure.add_axes((0.045, 0.03, 0.91, 0.83))
    plot.set_xlim(-0.12, len(axes) - 1 + 0.42)
    plot.set_ylim(-0.04, 1.04)
    plot.axis("off")
    colours = colormaps["viridis"]
    darkest, lightest = _SHADES[look["ink"]]
    goodness = [
        (place or 0.0) if record.is_maximized else 1 - (place or 0.0) for place in axes[-1].places
    ]
    best = record.find_best()
    # The worst first, so that the better ones lie above them.
    for place in sorted(range(len(trials)), key=lambda place: goodness[place]):
        is_best = best is not None and trials[place].number == best.number
        segments = _segments(axes, place)
        colour = (
            look["best"] if is_best else colours(darkest + (lightest - darkest) * goodness[place])
        )
        width, alpha = (2.8, 1.0) if is_best else (1.1, 0.45 if len(trials) > 60 else 0.75)
        lines = LineCollection(
            segments, colors=[colour], linewidths=width, alpha=alpha, zorder=5 if is_best else 2
        )
        plot.add_collection(lines)
    for across, axis in enumerate(axes):
        _draw_axis(plot, across, axis, look)


def _draw_axis(plot: Any, across: int, axis: Axis, look: dict[str, str]) -> None:
    above = {"ha": "center", "va": "bottom"}
    plot.plot([across, across], [0, 1], color=look["soft"], linewidth=1.1, zorder=3)
    plot.text(across, 1.10, _text(axis.title, 20), color=look["ink"], fontsize=9, **above)
    if axis.is_log:
        plot.text(across, 1.045, "logarithmic", color=look["soft"], fontsize=7, **above)
    behind = {"facecolor": look["card"], "alpha": 0.75, "linewidth": 0, "pad": 0.5}
    for height, label in axis.ticks:
        mark = [across, across + 0.025], [height, height]
        plot.plot(*mark, color=look["soft"], linewidth=0.9, zorder=3)
        plot.text(
            across + 0.045, height, _text(label, 14), va="center", color=look["ink"], fontsize=7.5,
            zorder=6, bbox=behind,
        )  # fmt: skip


def _segments(axes: Sequence[Axis], trial: int) -> list[list[tuple[float, float]]]:
    """Returns a trial's line, broken where it has no place on an axis; a place between two gaps is
    a stub."""
    runs: list[list[tuple[float, float]]] = [[]]
    for across, axis in enumerate(axes):
        height = axis.places[trial]
        if height is None:
            runs.append([])
        else:
            runs[-1].append((across, height))
    return [
        run if len(run) > 1 else [(run[0][0] - 0.05, run[0][1]), (run[0][0] + 0.05, run[0][1])]
        for run in runs
        if run
    ]


# ---- along the rungs


def rung_curves(record: StudyRecord) -> Picture | None:
    """Draws values against epochs; returns None if no trial has shown a value."""
    curves = {}
    for trial in record.ranked:
        points = [
            (r.epoch, r.value)
            for r in trial.rungs
            if math.isfinite(r.value) and math.isfinite(r.epoch)
        ]
        if points:
            curves[trial.number] = (trial, points)
    if not curves:
        return None
    return _drawn(
        lambda figure, look: _draw_curves(figure, look, record, list(curves.values())),
        (8.6, 3.7),
        alt=f"{record.metric} of {len(curves)} trials against the epochs that they were trained "
        "for",
    )


def _draw_curves(
    figure: Any,
    look: dict[str, str],
    record: StudyRecord,
    curves: Sequence[tuple[TrialResult, list[tuple[float, float]]]],
) -> None:
    plot = figure.add_axes((0.085, 0.135, 0.895, 0.84))
    best = record.find_best()
    for trial, points in curves:
        is_best = best is not None and trial.number == best.number
        is_whole = trial.state == "complete"
        colour = look["best"] if is_best else look["soft"] if is_whole else look["faint"]
        plot.plot(
            *zip(*points, strict=True),
            color=colour,
            linewidth=2.8 if is_best else 1.5 if is_whole else 0.8,
            marker="o",
            markersize=5.5 if is_best else 3.6 if is_whole else 2.6,
            zorder=4 if is_best else 3 if is_whole else 2,
        )
    values = [value for _, points in curves for _, value in points]
    shown = _fenced(values, record.is_maximized)
    if _spans(shown):
        plot.set_yscale("log")
        plot.set_ylim(min(shown) / 1.1, max(shown) * 1.1)
    elif max(shown) > min(shown):
        margin = 0.06 * (max(shown) - min(shown))
        plot.set_ylim(min(shown) - margin, max(shown) + margin)
    _dress(plot, look)
    plot.set_xlim(left=0)
    plot.set_xlabel("epochs", color=look["soft"], fontsize=9)
    plot.set_ylabel(_text(title_of(record.metric), 40), color=look["soft"], fontsize=9)


def _dress(plot: Any, look: dict[str, str]) -> None:
    plot.patch.set_alpha(0.0)
    plot.grid(axis="y", color=look["faint"], linewidth=0.6, alpha=0.6)
    plot.set_axisbelow(True)
    plot.tick_params(which="both", colors=look["soft"], labelsize=8.5)
    for side, spine in plot.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look["faint"])


# ---- both


def _drawn(
    draw: Callable[[Any, dict[str, str]], None],
    size: tuple[float, float],
    *,
    alt: str,
    notes: tuple[str, ...] = (),
) -> Picture:
    """Returns a picture of so many inches, drawn for the light and for the dark page."""
    light, dark = (_png(draw, look, size) for look in (_LIGHT, _DARK))
    width, height = (round(96 * inches) for inches in size)
    return Picture(light=light, dark=dark, width=width, height=height, alt=alt, notes=notes)


def _png(
    draw: Callable[[Any, dict[str, str]], None], look: dict[str, str], size: tuple[float, float]
) -> str:
    """Returns a PNG as data."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    draw(figure, look)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in letters that Matplotlib's font lacks is drawn as boxes; the page's table has it
        # in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, dpi=_DOTS_PER_INCH, transparent=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _text(text: str, length: int) -> str:
    return plotted(short(one_line(text), length))
