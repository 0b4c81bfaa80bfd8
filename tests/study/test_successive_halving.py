"""Successive halving: nobody's fate depends on who came first."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.errors import UsageError
from volano.study.successive_halving import (
    Round,
    SuccessiveHalving,
    best_numbers,
    check_rungs,
    shares_of,
)

numbers = st.floats(-10, 10) | st.just(math.nan) | st.just(math.inf)


@pytest.mark.parametrize(
    ("num_trials", "eta", "expected"),
    [
        (81, 3, 4),
        (80, 3, 3),
        (128, 3, 4),
        (27, 3, 3),
        (9, 3, 2),
        (3, 3, 1),
        (1, 3, 1),
        (64, 2, 6),
        (64, 4, 3),
    ],
)
def test_as_many_rungs_as_leave_about_eta_trials_for_the_last(num_trials, eta, expected):
    shares = shares_of(num_trials, eta)
    assert shares == tuple(float(Fraction(1, eta**i)) for i in reversed(range(expected)))
    assert shares[-1] == 1.0
    assert num_trials // eta ** (len(shares) - 1) >= min(eta, num_trials)


def test_a_given_number_of_rungs_is_taken():
    assert shares_of(5, 2, 3) == (0.25, 0.5, 1.0)
    assert shares_of(500, 3, 1) == (1.0,)


@given(st.lists(numbers, min_size=1, max_size=40), st.integers(2, 5), st.randoms(), st.booleans())
def test_the_decision_does_not_depend_on_the_order_of_arrival(values, eta, random, is_up):
    direction = "maximize" if is_up else "minimize"

    def decide(order):
        rungs = SuccessiveHalving(shares_of(len(values), eta, 2), eta, direction)
        for number in order:
            rungs.record(0, number, values[number])
        return rungs.decide(0, order)

    order = list(range(len(values)))
    first = decide(order)
    random.shuffle(order)
    assert decide(order) == first


@given(st.lists(numbers, min_size=1, max_size=40), st.integers(2, 5))
def test_the_best_go_on_and_what_is_no_number_never_does(values, eta):
    rungs = SuccessiveHalving(shares_of(1, eta, 2), eta, "minimize")
    for number, value in enumerate(values):
        rungs.record(0, number, value)
    kept, cut = rungs.decide(0, range(len(values)))
    assert sorted(kept + cut) == list(range(len(values)))
    finite = [value for value in values if math.isfinite(value)]
    assert len(kept) == min(len(finite), math.ceil(len(values) / eta))
    assert all(math.isfinite(values[number]) for number in kept)
    assert all(values[k] <= values[c] for k in kept for c in cut if math.isfinite(values[c]))


def test_an_order_dependent_pruner_would_keep_one_or_all_of_27():
    # The figures of Optuna's SuccessiveHalvingPruner on such a rung: 1 best first, 27 worst first.
    # Nine is right.
    for order in (range(27), reversed(range(27))):
        rungs = SuccessiveHalving(shares_of(27, 3), 3, "minimize")
        for number in order:
            rungs.record(0, number, float(number))
        assert rungs.decide(0, range(27))[0] == tuple(range(9))


def test_a_later_cohort_is_compared_with_the_earlier_ones():
    rungs = SuccessiveHalving((0.5, 1.0), 3, "maximize")
    for number in range(9):
        rungs.record(0, number, 10.0 + number)
    assert rungs.decide(0, range(9))[0] == (6, 7, 8)
    for number, value in ((9, 0.0), (10, 15.5), (11, 17.5)):
        rungs.record(0, number, value)
    # The best four of twelve are 18, 17.5, 17 and 16: a third of the three alone would have been
    # one anyway.
    assert rungs.decide(0, (9, 10, 11)) == ((11,), (9, 10))
    # Of those that wait, the one that was pushed out goes too.
    for number in range(12, 16):
        rungs.record(0, number, 20.0)
    assert rungs.decide(0, (6, 7, 8, 11)) == ((8, 11), (6, 7))


def test_ties_go_to_the_lower_number():
    assert best_numbers({5: 1.0, 2: 1.0, 9: 1.0, 1: 2.0}, 2, "minimize") == {2, 5}
    assert best_numbers({5: 1.0, 2: 1.0, 9: 1.0, 1: 0.0}, 2, "maximize") == {2, 5}


def test_the_last_rung_keeps_every_number():
    rungs = SuccessiveHalving((0.5, 1.0), 2, "minimize")
    for number, value in enumerate([3.0, math.nan, 1.0]):
        rungs.record(1, number, value)
    assert rungs.decide(1, range(3)) == ((0, 2), (1,))


def test_a_round_is_due_when_its_quorum_has_arrived():
    each = Round(0, range(6), 2 / 3)
    for number in range(3):
        each.arrive(number)
        assert not each.is_due
    each.arrive(3)
    assert each.is_due
    assert each.undecided == (0, 1, 2, 3)
    each.decided(each.undecided)
    assert not each.is_due
    each.arrive(4)  # a latecomer is decided about at once
    assert each.is_due
    assert each.undecided == (4,)


def test_nobody_waits_for_those_that_failed_or_were_lost():
    each = Round(0, range(4), 1.0)
    each.arrive(0)
    each.give_up(1)
    each.give_up(2)
    assert not each.is_due
    each.give_up(3)
    assert each.is_due
    empty = Round(0, range(2), 1.0)
    empty.give_up(0)
    empty.give_up(1)
    assert not empty.is_due


@given(st.integers(1, 200), st.sampled_from([1 / 3, 0.5, 2 / 3, 0.9, 1.0]))
def test_two_thirds_is_two_of_three_and_all_is_all(count, quorum):
    each = Round(0, range(count), quorum)
    arrived = 0
    while not each.is_due:
        each.arrive(arrived)
        arrived += 1
    assert abs(arrived - quorum * count) < 1


@pytest.mark.parametrize("eta", [1, 0, 2.5, "3"])
def test_an_eta_that_cannot_be_meant_is_refused(eta):
    with pytest.raises(UsageError, match="`eta` must be a whole number"):
        check_rungs(eta, None)


@pytest.mark.parametrize("rungs", [0, 13, 1.5])
def test_rungs_that_cannot_be_meant_are_refused(rungs):
    with pytest.raises(UsageError, match="`rungs` must be a whole number"):
        check_rungs(3, rungs)
