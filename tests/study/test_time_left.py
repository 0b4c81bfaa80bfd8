"""What is left is estimated from what was."""

from __future__ import annotations

import pytest

from volano.study.time_left import TimeEstimate


def test_nothing_is_known_before_the_first_round():
    time_left = TimeEstimate((0.5, 1.0), 2)
    assert time_left.seconds(4, 0) is None
    assert time_left.seconds_to_end({0: 4}, 0, 1) is None


def test_a_round_of_the_same_width_takes_what_it_took_for_the_same_distance():
    time_left = TimeEstimate((0.25, 0.5, 1.0), 2)
    time_left.note(8, 0, 3.0)
    assert time_left.seconds(8, 0) == pytest.approx(3.0)
    assert time_left.seconds(8, 1) == pytest.approx(3.0)
    assert time_left.seconds(8, 2) == pytest.approx(6.0)


def test_a_narrower_round_takes_between_its_part_and_all_of_it_and_a_wider_one_in_proportion():
    time_left = TimeEstimate((0.5, 1.0), 2)
    time_left.note(8, 0, 4.0)
    assert time_left.seconds(4, 0) == pytest.approx(3.0)
    assert time_left.seconds(16, 0) == pytest.approx(8.0)


def test_the_way_to_the_end_goes_over_all_rungs_with_fewer_at_each():
    time_left = TimeEstimate((0.5, 1.0), 2)
    for count, seconds in ((8, 8.0), (4, 4.0), (2, 2.0), (6, 6.0)):
        time_left.note(count, 0, seconds)
    # 8 new ones four at a time, then 4 survivors and 2 that wait there already.
    assert time_left.seconds_to_end({1: 2}, 8, 4) == pytest.approx(4.0 + 4.0 + 6.0)


def test_runs_to_the_end_are_of_fewer_trials_at_each_rung():
    time_left = TimeEstimate((0.25, 0.5, 1.0), 2)
    assert time_left.runs_to_end({}, 8) == pytest.approx(8 * 0.25 + 4 * 0.25 + 2 * 0.5)
    assert time_left.runs_to_end({2: 3}, 0) == pytest.approx(1.5)
    assert time_left.runs_to_end({}, 0) == 0.0
