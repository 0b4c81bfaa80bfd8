"""What planning may cost, by a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.planner.search import time_budget
from volano.planner.search.time_budget import MOST_SHARE, TimeBudget


class Clock:
    """Stands still until it is told."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time_budget, "time", clock)
    return clock


def test_a_little_at_first_and_more_with_gains(clock):
    asked = TimeBudget(run_seconds=1000.0)
    first = asked.total
    assert 0 < first < MOST_SHARE * 1000
    asked.note_gain(0.05)
    assert first < asked.total < MOST_SHARE * 1000
    asked.note_gain(0.9)
    assert asked.total == MOST_SHARE * 1000
    asked.note_gain(0.0)  # a gain that was found stays found
    assert asked.total == MOST_SHARE * 1000


def test_time_is_spent_and_reused_compilation_is_not(clock):
    asked = TimeBudget(run_seconds=1000.0)
    clock.now += 20
    assert asked.spent == 20
    assert asked.left == pytest.approx(-5.0)
    asked.note_reused(15.0)
    assert asked.left == pytest.approx(10.0)
    assert asked.left_in_all == pytest.approx(-5.0)


def test_a_run_of_unknown_length_and_a_free_search_have_the_ceiling(clock):
    assert TimeBudget(most_seconds=7.0).total == 7.0
    assert TimeBudget(run_seconds=1.0, most_seconds=7.0, is_free=True).total == 7.0


@given(run=st.floats(0, 1e7), gain=st.floats(-5, 1), most=st.floats(0, 1e5))
def test_never_more_than_the_share_nor_the_ceiling(run, gain, most):
    asked = TimeBudget(run_seconds=run, most_seconds=most)
    asked.note_gain(gain)
    assert asked.total <= min(most, MOST_SHARE * run)
