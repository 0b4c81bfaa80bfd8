"""Charts: places on the axes, ticks, what is thinned, and what is said in words."""

from __future__ import annotations

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from volano.report.charts import CHART_SIDE, Chart, Line, draw_chart

finite = st.floats(-1e9, 1e9).map(lambda value: round(value, 3))


def chart_of(points, **options) -> Chart:
    chart = draw_chart("Loss", [Line(label="training", points=points)], **options)
    assert chart is not None
    return chart


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path)]


def test_nothing_to_draw():
    assert draw_chart("Loss", []) is None
    assert draw_chart("Loss", [Line(label="training", points=[])]) is None


def test_up_is_more_and_right_is_later():
    (x0, y0), (x1, y1) = places(chart_of([(0, 1.0), (10, 3.0)]).lines[0].path)
    assert (x0, x1) == (0, CHART_SIDE)
    assert 0 < y1 < y0 < CHART_SIDE


@given(
    st.lists(st.tuples(st.integers(0, 10**6), finite), min_size=1, max_size=40),
    st.booleans(),
    st.booleans(),
)
def test_everything_lies_inside(points, may_be_log, from_zero):
    points = sorted({x: (float(x), abs(y) if from_zero else y) for x, y in points}.values())
    chart = chart_of(points, may_be_log=may_be_log, from_zero=from_zero)
    for x, y in places(chart.lines[0].path):
        assert -0.1 <= x <= CHART_SIDE + 0.1
        assert -0.1 <= y <= CHART_SIDE + 0.1
    for tick in (*chart.x_ticks, *chart.y_ticks):
        assert -0.01 <= tick.percent <= 100.01
    assert len({tick.label for tick in chart.y_ticks}) == len(chart.y_ticks)
    assert 2 <= len(chart.y_ticks) <= 8


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        ([(0, 0.0), (1, 1.0)], ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        ([(0, 100.0), (1, 4100.0)], ["0", "1,000", "2,000", "3,000", "4,000"]),
    ],
)
def test_ticks_are_round(points, labels):
    assert [tick.label for tick in chart_of(points).y_ticks] == labels


def test_a_wide_span_is_logarithmic_where_that_is_wanted():
    points = [(0, 100.0), (1, 1.0), (2, 0.01)]
    chart = chart_of(points, may_be_log=True)
    assert chart.is_log
    heights = [y for _, y in places(chart.lines[0].path)]
    # Equal factors, equal distances.
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    assert not chart_of(points).is_log
    assert not chart_of([(0, 100.0), (1, 0.0)], may_be_log=True).is_log


def test_a_dense_line_keeps_its_peaks():
    points = [(float(x), 1.0) for x in range(10_000)]
    points[4321] = (4321.0, 7.0)
    found = places(chart_of(points).lines[0].path)
    assert len(found) <= 402
    assert min(y for _, y in found) < CHART_SIDE / 4


def test_readings_tile_the_width_and_name_the_values():
    chart = draw_chart(
        "Loss",
        [
            Line(label="training", points=[(0, 2.5), (10, 1.5), (20, 1.0)]),
            Line(label="validation", points=[(20, 1.25)]),
        ],
    )
    assert chart is not None
    assert [reading.text for reading in chart.readings] == [
        "step 0\ntraining 2.5",
        "step 10\ntraining 1.5",
        "step 20\ntraining 1\nvalidation 1.25",
    ]
    assert sum(reading.width for reading in chart.readings) == pytest.approx(100, abs=0.1)


def test_in_words():
    chart = chart_of([(1, 2.0), (5, 0.5), (9, 0.75)])
    assert chart.alt == (
        "Loss, from step 1 to 9. training: 2 at first, 0.75 at last, between 0.5 and 2."
    )


def test_marks():
    chart = chart_of([(0, 1.0), (10, 1.0)], spikes=[(5, 1.0)], skipped=[2.5, 99.0])
    assert [x for x, _ in places(chart.spikes)] == [500]
    assert chart.skipped == (25.0,)
