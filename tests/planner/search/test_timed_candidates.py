"""What follows from the seconds of candidates that have run."""

import functools
from types import SimpleNamespace

from planner.racing import race_of
from planner.searching import PLAIN, make_task
from volano.planner import PlanRequest
from volano.planner.search import timing
from volano.planner.search.race import CandidateRace


def test_what_was_predicted_to_be_fast_runs_first():
    steps = {"fp32": 0.3, "bf16": 0.1, "tf32": 0.2}
    race = race_of(
        lambda plan: steps[plan.precision],
        precision=tuple(steps),
        predicted=lambda plan: SimpleNamespace(step=steps[plan.precision]),
    )
    assert [plan.precision for plan in race.eager_plans()] == ["bf16", "tf32", "fp32"]
    # If one of them isn't predicted, the order is that of the options, from the last one on.
    race._cost_model.expected = lambda plan: None
    assert [plan.precision for plan in race.eager_plans()] == ["tf32", "bf16", "fp32"]


def test_steps_of_a_run_of_given_length_are_those_of_the_first_candidate():
    race = race_of(lambda _: 0.5, request=PlanRequest(seconds=60.0))
    assert race.num_steps == 50000
    race.run()
    assert race.num_steps == 120
    assert race.cost(race.ranking()[0]) == 60.0


def test_start_up_counts():
    one = functools.partial(timing.Timing, plan=PLAIN)
    several = object.__new__(CandidateRace)
    several._task, several._request = make_task(duration="100st"), PlanRequest(world_size=2)
    assert several.cost(one(step=0.5, startup=30.0)) == 80.0
    several._request = PlanRequest()
    assert several.cost(one(step=0.5, startup=30.0)) == 50.0
