"""The geometry of line charts; the template draws them as inline SVG.

The lines live in a square of 1,000 units that is stretched to whatever width the page has (strokes
keep their width); ticks, labels and values stand around it as HTML, so that text keeps its size at
400 pixels and at 1,400.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from volano.record.format import plain_number

CHART_SIDE = 1000.0
_MOST_POINTS = 400  # of a line: more than a chart has pixels is weight without sight
_MOST_READINGS = 60  # columns that show their values under the pointer
_LOG_FROM, _LOG_TO = 30.0, 1e20  # a loss that spans this is drawn on a logarithmic scale
_MARGIN = 0.06  # of the height, above and below the lines

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line to draw: points (x, y) in the order of x.

    Attributes:
        label: label for legend and readings.
        points: the points through which it goes.
        colour: 1 to 6, a colour of the page.
        is_dotted: whether dots stand at the points, for few of them.
        is_dashed: whether the line is broken, for baselines.
    """

    label: str
    points: Sequence[Point]
    colour: int = 1
    is_dotted: bool = False
    is_dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class DrawnLine:
    """A line in the square: an SVG path, and dots as paths of no length."""

    label: str
    colour: int
    path: str
    dots: str
    is_dashed: bool
    last: str


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A label at ``percent`` of the axis, from the left or from the top."""

    percent: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The values at one place, shown while the pointer is in its column (percent of the width)."""

    left: float
    width: float
    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The values that the template needs for a chart. ``spikes`` is a path of dots, ``skipped``
    holds places in percent of the width."""

    title: str
    unit: str
    alt: str
    x_name: str
    lines: tuple[DrawnLine, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    readings: tuple[Reading, ...]
    spikes: str = ""
    skipped: tuple[float, ...] = field(default=())
    is_log: bool = False


def draw_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str = "step",
    unit: str = "",
    may_be_log: bool = False,
    from_zero: bool = False,
    spikes: Sequence[Point] = (),
    skipped: Sequence[float] = (),
) -> Chart | None:
    """Returns a chart of the lines, or None if no line has a point.

    Args:
        title: the chart's title.
        lines: the lines; about six can be distinguished.
        x_name: name of the horizontal axis.
        unit: unit after the values, such as ``" %"``.
        may_be_log: whether a wide span of positive values is drawn logarithmically.
        from_zero: whether the vertical axis begins at 0.
        spikes: points to mark.
        skipped: places on the horizontal axis to mark.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    is_log = (
        may_be_log and not from_zero and min(ys) > 0 and _LOG_FROM < max(ys) / min(ys) < _LOG_TO
    )
    across = _Axis.over(0.0 if x_name == "step" and max(xs) > 0 else min(xs), max(xs))
    up = _Axis.over(
        0.0 if from_zero else min(ys), max(ys), is_log=is_log, margin=_MARGIN, has_floor=from_zero
    )
    return Chart(
        title=title,
        unit=unit,
        alt=_describe(title, lines, x_name, unit),
        x_name=x_name,
        lines=tuple(_draw_line(line, across, up, unit) for line in lines),
        y_ticks=tuple(Tick(percent=100 * (1 - at), label=label + unit) for at, label in up.ticks()),
        x_ticks=tuple(Tick(percent=100 * at, label=label) for at, label in across.whole_ticks()),
        readings=_readings(lines, across, x_name, unit),
        spikes=_dots(spikes, across, up),
        skipped=tuple(
            round(100 * across.place(x), 2) for x in skipped if across.low <= x <= across.high
        ),
        is_log=is_log,
    )


@dataclass(frozen=True, kw_only=True)
class _Axis:
    low: float
    high: float
    is_log: bool = False

    @classmethod
    def over(
        cls,
        low: float,
        high: float,
        *,
        is_log: bool = False,
        margin: float = 0.0,
        has_floor: bool = False,
    ) -> _Axis:
        if is_log:
            stretch = (high / low) ** margin
            return cls(low=low / stretch, high=high * stretch, is_log=True)
        if high == low:
            reach = abs(low) / 2 or 0.5
            return cls(low=low if has_floor or margin == 0 else low - reach, high=high + reach)
        extra = (high - low) * margin
        return cls(low=low if has_floor else low - extra, high=high + extra)

    def place(self, value: float) -> float:
        """Returns the place of a value: 0 at ``low``, 1 at ``high``."""
        if self.is_log:
            value = max(value, self.low)  # a marked point may lie below the lines
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        if self.is_log:
            found = [
                v
                for e in range(-12, 13)
                for v in (10.0**e, 3 * 10.0**e)
                if self.low <= v <= self.high
            ]
            if len(found) >= 3:
                return [
                    (self.place(value), plain_number(value))
                    for value in found[:: -(-len(found) // 6)]
                ]
        step = _nice_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        values = [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        digits = next(
            (digits for digits in range(12) if abs(round(step, digits) - step) < 1e-6 * step), 12
        )
        return [
            (self.place(value), f"{value:,.{digits}f}")
            for value in values
            if value > 0 or not self.is_log
        ]

    def whole_ticks(self) -> list[tuple[float, str]]:
        step = max(1.0, _nice_step((self.high - self.low) / 6))
        first = math.ceil(self.low / step - 1e-9)
        values = [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(self.place(value), _compact(value)) for value in values]


def _nice_step(rough: float) -> float:
    scale = 10.0 ** math.floor(math.log10(rough))
    return next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= rough * 0.999)


def _compact(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e6 if letter == 'M' else 1e3):.4g}{letter}"
    return f"{value:,.0f}"


def _draw_line(line: Line, across: _Axis, up: _Axis, unit: str) -> DrawnLine:
    points = _thinned(line.points)
    path = "L".join(_at(point, across, up) for point in points)
    return DrawnLine(
        label=line.label,
        colour=line.colour,
        path=f"M{path}",
        dots=_dots(points, across, up) if line.is_dotted or len(points) == 1 else "",
        is_dashed=line.is_dashed,
        last=plain_number(line.points[-1][1]) + unit,
    )


def _dots(points: Sequence[Point], across: _Axis, up: _Axis) -> str:
    # A stroke of no length with round ends is a dot, and stays round however the square is
    # stretched.
    return "".join(f"M{_at(point, across, up)}h0" for point in points)


def _at(point: Point, across: _Axis, up: _Axis) -> str:
    return f"{CHART_SIDE * across.place(point[0]):.1f} {CHART_SIDE * (1 - up.place(point[1])):.1f}"


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Returns the lowest and the highest point of each stretch: the shape of a dense line, spikes
    included."""
    if len(points) <= _MOST_POINTS:
        return points
    size = -(-2 * len(points) // _MOST_POINTS)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        pair = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(pair)
    return [*kept, points[-1]] if kept[-1] != points[-1] else kept


def _readings(lines: Sequence[Line], across: _Axis, x_name: str, unit: str) -> tuple[Reading, ...]:
    places = sorted({x for line in lines for x, _ in line.points})
    places = places[:: -(-len(places) // _MOST_READINGS)]
    tables = [(line.label, dict(line.points)) for line in lines]
    edges = [(a + b) / 2 for a, b in itertools.pairwise(places)]
    found = []
    for x, left, right in zip(places, [across.low, *edges], [*edges, across.high], strict=True):
        values = [
            f"{label} {plain_number(table[x])}{unit}" for label, table in tables if x in table
        ]
        start, end = 100 * across.place(left), 100 * across.place(right)
        found.append(
            Reading(
                left=round(start, 2),
                width=round(end - start, 2),
                at=round(100 * across.place(x), 2),
                text="\n".join([f"{x_name} {plain_number(x)}", *values]),
            )
        )
    return tuple(found)


def _describe(title: str, lines: Sequence[Line], x_name: str, unit: str) -> str:
    first, last = lines[0].points[0][0], lines[0].points[-1][0]
    parts = [f"{title}, from {x_name} {plain_number(first)} to {plain_number(last)}."]
    for line in lines:
        ys = [y for _, y in line.points]
        parts.append(
            f"{line.label}: {plain_number(ys[0])}{unit} at first, {plain_number(ys[-1])}{unit} at "
            "last, "
            f"between {plain_number(min(ys))}{unit} and {plain_number(max(ys))}{unit}."
        )
    return " ".join(parts)
