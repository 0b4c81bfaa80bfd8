"""Minutes become a schedule: properties over simulated machines."""

import dataclasses
import math

from hypothesis import assume, given
from hypothesis import strategies as st

from volano.running.time_schedule import (
    LEAST_LOOK_SECONDS,
    LEAST_STEPS,
    LOOK_SHARE,
    NetworkCosts,
    RunCosts,
    make_schedule,
    minutes_that_do,
    reserve_seconds,
    revised_steps,
    revision_point,
    steps_at_later_look,
)

MINUTES = st.floats(0.1, 600.0)


def logarithmic(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


@st.composite
def machines(draw):
    """The costs of three networks on a machine: steps of 0.1 ms to 10 s, tests of 1 ms to
    minutes."""
    step, test = draw(logarithmic(1e-4, 10.0)), draw(logarithmic(1e-3, 300.0))
    evaluation, startup = draw(logarithmic(1e-3, 60.0)), draw(logarithmic(1e-3, 60.0))
    more = draw(st.sampled_from([0.0, 2.0]))
    networks = [
        NetworkCosts(
            name=name,
            step=step * size,
            startup=startup,
            evaluation=evaluation * size,
            test=test * size,
            more=more * test * size,
            least_steps=least,
        )
        for name, size, least in (("wide", 8.0, 2000), ("base", 3.0, 500), ("thin", 1.0, 30))
    ]
    return RunCosts(
        spent=draw(logarithmic(0.1, 60.0)),
        planning=draw(st.floats(0.0, 5.0)),
        writing=draw(st.floats(0.1, 3.0)),
        networks=networks,
        num_evaluations=draw(st.integers(1, 10)),
        least_more=draw(st.sampled_from([0.25, 1.0])),
    )


def total(costs, found):
    phases = found.planning, found.training, found.evaluation, found.test, found.startup
    return costs.spent + sum(phases) + found.writing


@given(machines(), MINUTES)
def test_all_phases_end_in_the_minutes(costs, minutes):
    found = make_schedule(costs, 60 * minutes)
    assert total(costs, found) <= 60 * minutes * (1 + 1e-9) or found.warning is not None


@given(machines(), MINUTES)
def test_most_of_the_minutes_are_training(costs, minutes):
    seconds = 60 * minutes
    found = make_schedule(costs, seconds)
    network = costs.networks[found.network]
    assume(network.step <= seconds / 100)
    others = costs.spent - costs.planning + network.startup + costs.writing
    assume(costs.planning <= 0.05 * seconds)
    # What is kept in reserve of a run of seconds is a larger share of it.
    assume(others + reserve_seconds(seconds) <= 0.15 * seconds)
    assume(0.1 * network.test <= 0.08 * seconds)
    assume(0.1 * network.evaluation <= 0.06 * seconds)
    assert found.training >= 0.65 * seconds
    assert found.planning + costs.planning <= 0.05 * seconds + 1e-9


@given(machines(), MINUTES)
def test_few_steps_come_with_the_minutes_that_would_do(costs, minutes):
    found = make_schedule(costs, 60 * minutes)
    assert (found.warning is None) == (found.num_steps >= LEAST_STEPS)
    if found.warning is not None:
        would_do = minutes_that_do(costs.networks[found.network], costs)
        assert f"give {would_do:g} minutes" in found.warning
        assert make_schedule(costs, 60 * would_do).num_steps >= LEAST_STEPS


@given(machines(), MINUTES)
def test_a_larger_network_has_the_steps_that_it_needs(costs, minutes):
    found = make_schedule(costs, 60 * minutes)
    network = costs.networks[found.network]
    assert network.name == "thin" or found.num_steps >= network.least_steps


@given(machines(), MINUTES, st.floats(1.0, 10.0))
def test_more_minutes_never_give_fewer_steps_of_a_network(costs, minutes, factor):
    for network in costs.networks:
        only = dataclasses.replace(costs, networks=[network])
        first = make_schedule(only, 60 * minutes)
        assert make_schedule(only, 60 * minutes * factor).num_steps >= first.num_steps


@given(machines(), MINUTES)
def test_the_final_test_and_evaluations_keep_to_their_shares(costs, minutes):
    found = make_schedule(costs, 60 * minutes)
    network = costs.networks[found.network]
    assert found.test <= max(0.08 * 60 * minutes, 0.1 * network.test) + 1e-9
    assert found.evaluation <= max(0.06 * 60 * minutes, 0.1 * network.evaluation) + 1e-9
    # Views go before examples do, and what is of no use is not done at all.
    assert found.test_share == 1.0 or found.more_share == 0.0 or network.more == 0.0
    assert found.more_share == 0.0 or found.more_share >= costs.least_more
    assert 1 <= found.num_evaluations <= max(1, min(costs.num_evaluations, found.num_steps))


def test_a_slow_machine_gets_a_smaller_network_and_not_one_step_of_a_larger_one():
    def costs(slower):
        sizes = (("wide", 1.0, 1000), ("thin", 0.1, 30))
        return RunCosts(
            spent=5.0,
            networks=[
                NetworkCosts(name=name, step=slower * step, least_steps=least)
                for name, step, least in sizes
            ],
        )

    fast, slow = (make_schedule(costs(slower), 60.0) for slower in (0.01, 5.0))
    assert (fast.network, slow.network) == (0, 1)
    assert slow.num_steps > 30


def test_views_go_first_and_then_examples():
    def found(minutes, **wishes):
        network = NetworkCosts(name="thin", step=0.01, test=10.0, more=20.0)
        schedule = make_schedule(RunCosts(spent=1.0, networks=[network], **wishes), 60 * minutes)
        return round(schedule.more_share, 3), round(schedule.test_share, 3)

    assert found(10.0) == (1.0, 1.0)
    assert found(3.0) == (0.0, 1.0)
    assert found(3.0, least_more=0.2) == (0.22, 1.0)
    assert found(1.0) == (0.0, 0.48)
    assert found(0.1) == (0.0, 0.1)


def test_a_run_that_looks_again_begins_with_a_few_steps_and_says_that_they_are_few():
    network = NetworkCosts(name="thin", step=30.0)
    for is_revised, steps in ((False, 1), (True, 6)):
        costs = RunCosts(spent=1.0, networks=[network], is_revised=is_revised)
        found = make_schedule(costs, 60.0)
        assert (found.num_steps, found.warning is None) == (steps, False)
    few = dataclasses.replace(network, most_steps=2)
    assert make_schedule(dataclasses.replace(costs, networks=[few]), 60.0).num_steps == 2


def test_a_network_that_is_solved_before_the_first_step_is_not_warned_of_few():
    solved = NetworkCosts(name="thin", step=0.01, startup=90.0, least_steps=0, most_steps=100)
    for seconds, steps in ((60.0, 1), (600.0, 100)):
        found = make_schedule(RunCosts(spent=1.0, networks=[solved], is_revised=True), seconds)
        assert (found.num_steps, found.warning) == (steps, None)


@given(machines(), MINUTES, st.floats(0.2, 10.0), st.floats(0.5, 1.0))
def test_a_machine_that_changes_its_speed_keeps_the_minutes(costs, minutes, slower, later):
    """A machine that is ``slower`` than in the first timing from the first step on, and goes on so;
    or becomes faster later."""
    seconds = 60 * minutes
    found = make_schedule(costs, seconds)
    assume(found.warning is None)
    step = slower * costs.networks[found.network].step
    at_step, at_seconds = revision_point(found.num_steps, found.training)
    made = min(at_step, max(3, math.ceil(at_seconds / step)))
    assume(made * step < 0.3 * seconds)
    clock = costs.spent + found.planning + found.startup + made * step
    kept = found.kept + found.evaluation
    steps = revised_steps(
        step=made, num_steps=found.num_steps, expected=found.training / found.num_steps,
        measured=step, left=seconds - clock, kept=kept, most_steps=10**9,
    )  # fmt: skip
    end = clock + later * ((steps - made) * step + max(1.0, slower) * kept)
    assert steps > made
    assert end <= seconds * (1 + 1e-9) or steps == made + 1 or abs(slower - 1) < 0.05
    if later == 1.0 and steps < 10**9:
        assert end >= 0.8 * seconds or steps <= found.num_steps


def test_a_timing_that_was_right_is_not_revised():
    facts = {"step": 10, "num_steps": 100, "expected": 1.0, "left": 1000.0, "kept": 5.0}
    facts |= {"most_steps": 10**9}
    assert revised_steps(**facts, measured=1.04) == 100
    assert revised_steps(**facts, measured=2.0) == 10 + (1000 - 10) // 2
    assert revised_steps(**facts, measured=0.5) == 10 + int((1000 - 5) / 0.55)
    assert revised_steps(**facts, measured=0.9) == 10 + int((1000 - 5) / 0.95)
    assert revised_steps(**{**facts, "most_steps": 200}, measured=0.5) == 200
    assert revised_steps(**{**facts, "left": 1.0}, measured=9.0) == 11
    # The timing was right, but there is no time for so many: they were only to begin with.
    assert revised_steps(**{**facts, "left": 8.0}, measured=1.0) == 13


def simulated(seconds, step, kept, begun_with, slowdown, most_steps=10**9):
    """Returns the steps of a run on a machine whose steps take ``slowdown(share)`` times ``step``,
    by the share of the training's time that has passed, and the seconds when the last is made."""
    reserve = reserve_seconds(seconds)
    training = seconds - reserve - kept
    num_steps, window = begun_with, max(LEAST_LOOK_SECONDS, LOOK_SHARE * training)
    clock = since = seen_seconds = 0.0
    made = made_since = seen = 0
    while made < num_steps:
        now = step * slowdown(clock / training)
        made, made_since, clock, since = made + 1, made_since + 1, clock + now, since + now
        if since >= window and made < num_steps:
            seen, seen_seconds = seen + made_since, seen_seconds + since
            pace = (seen_seconds / seen + since / made_since) / 2
            before, num_steps = num_steps, steps_at_later_look(
                step=made, num_steps=num_steps, expected=step, measured=pace,
                left=seconds - reserve - clock, kept=kept, reserve=reserve, most_steps=most_steps,
            )  # fmt: skip
            assert made < num_steps
            assert num_steps <= before or (made <= before / 2 and num_steps <= most_steps)
            made_since, since = 0, 0.0
    return num_steps, clock


@given(
    seconds=st.floats(30.0, 600.0),
    step=logarithmic(1e-3, 0.3),
    slower=st.floats(1.0, 4.0),
    place=st.floats(0.1, 0.9),
    lasting=st.floats(0.0, 1.0),
    kept_share=st.floats(0.0, 0.1),
)
def test_a_machine_that_becomes_slower_in_mid_run_keeps_the_minutes(
    seconds, step, slower, place, lasting, kept_share
):
    """Slower by a factor from a place of the training on, for a share of its seconds."""
    kept = kept_share * seconds
    begun_with = int((seconds - reserve_seconds(seconds) - kept) / step)

    def slowdown(share):
        return slower if place <= share < place + lasting else 1.0

    num_steps, clock = simulated(seconds, step, kept, begun_with, slowdown)
    assert num_steps <= begun_with
    end = clock + kept * (slower if place + lasting > 1.0 else 1.0)
    assert end <= 1.02 * seconds + kept_share * seconds * (slower - 1.0)
    if slower == 1.0 or lasting == 0.0:
        assert num_steps == begun_with
    if place + lasting > 1.0:  # the steps that fit are made
        assert end >= 0.9 * seconds


@given(
    seconds=st.floats(30.0, 600.0),
    step=logarithmic(1e-3, 0.3),
    share=st.floats(0.2, 1.0),
    kept_share=st.floats(0.0, 0.1),
)
def test_time_that_is_left_over_is_trained(seconds, step, share, kept_share):
    """A run that begins with a share of the steps that fit."""
    kept = kept_share * seconds
    fit = int((seconds - reserve_seconds(seconds) - kept) / step)
    begun_with = max(20, int(share * fit))
    assume(begun_with <= fit)
    num_steps, clock = simulated(seconds, step, kept, begun_with, lambda _: 1.0)
    assert begun_with <= num_steps <= fit + 1
    assert clock + kept <= seconds
    # Less than a look's worth of time, or a twentieth of the steps, is no reason for others.
    assert num_steps >= fit / 1.06 - 1
    most = fit // 2
    if begun_with <= most:
        assert simulated(seconds, step, kept, begun_with, lambda _: 1.0, most)[0] <= most


def test_a_run_is_not_stretched_in_its_second_half():
    facts = {"num_steps": 100, "expected": 1.0, "measured": 1.0, "kept": 5.0, "reserve": 5.0}
    facts |= {"most_steps": 10**9}
    assert steps_at_later_look(**facts, step=50, left=105.0) == 150
    assert steps_at_later_look(**facts, step=51, left=105.0) == 100
    assert steps_at_later_look(**facts, step=50, left=59.0) == 100  # four steps more
    assert steps_at_later_look(**{**facts, "most_steps": 120}, step=50, left=105.0) == 120
    assert steps_at_later_look(**facts, step=90, left=13.0) == 100  # half of the reserve
    assert steps_at_later_look(**facts, step=90, left=10.0) == 95
