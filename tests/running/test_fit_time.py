"""Which size of network a time is enough for, on simulated machines."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from volano import Plan
from volano.planner import PlanRequest, PlanResult
from volano.running.fit_time import EvaluationCosts, TrainingSize, fit_time
from volano.running.time_limit import TimeLimit

PLAIN = Plan.baseline("cpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine(TimeLimit):
    """A time on a machine whose clock only counts what is measured: ``step(name, threads)``
    seconds."""

    step: object = None
    raced: Plan = PLAIN
    asked: list = dataclasses.field(default_factory=list)

    def left(self):
        return self.seconds - sum(seconds for *_, seconds in self.asked)

    def choose_plan(self, task, *, is_raced, **_):
        pins = self.planning.pins
        self.asked.append(("plan", task.name, is_raced, 0.1))
        return PlanResult(plan=(self.raced if is_raced else PLAIN).pin(**pins))

    def measure_step(self, task, plan):
        seconds = self.step(task.name, plan.threads)
        self.asked.append(("step", task.name, plan.threads, 3 * seconds))
        return SimpleNamespace(step=seconds, startup=0.0)


def sizes(*named):
    return [
        TrainingSize(
            name=name, task=lambda name=name: SimpleNamespace(name=name, valid=None, batch_size=1),
            cost=cost, example_cost=cost, least_steps=least,
        )
        for name, cost, least in named
    ]  # fmt: skip


SIZES = (("base", 10.0, 500), ("thin", 1.0, 200), ("tiny", 0.25, 30))


def fitted(step, seconds=100.0, named=SIZES, costs=None, **fields):
    fields = {"planning": PlanRequest(), **fields}
    machine = Machine(started=0.0, seconds=seconds, step=step, **fields)
    found = fit_time(machine, sizes(*named), costs or (lambda *_: EvaluationCosts()))
    return found, machine


@pytest.mark.parametrize(
    ("thin", "name"), [(0.001, "base"), (0.01, "base"), (0.1, "thin"), (1.0, "tiny")]
)
def test_the_largest_that_gets_the_steps_it_needs(thin, name):
    costs = {"base": 10 * thin, "thin": thin, "tiny": 0.25 * thin}
    found, machine = fitted(lambda name, _: costs[name])
    assert found.network.name == name
    assert found.network.step == costs[name]
    assert found.schedule.num_steps <= 100 / costs[name]
    # The smallest is timed first; the large one not at all where it is out of the question.
    assert machine.asked[1][:2] == ("step", "tiny")
    if name == "tiny":
        assert "base" not in {asked[1] for asked in machine.asked}


def test_a_guess_that_was_wrong_is_put_right():
    # A large network uses the machine better than the smallest lets one think.
    costs = {"base": 0.05, "thin": 0.005, "tiny": 0.02}
    assert fitted(lambda name, _: costs[name])[0].network.name == "base"
    # And one that is slower than thought is not kept.
    costs = {"base": 5.0, "thin": 0.2, "tiny": 0.005}
    assert fitted(lambda name, _: costs[name])[0].network.name == "thin"


def test_all_is_measured_with_the_threads_of_the_request_and_what_was_said_is_kept():
    before, seen = torch.get_num_threads(), []
    planning = PlanRequest(pins={"threads": before + 1})
    found, _ = fitted(
        lambda *_: seen.append(torch.get_num_threads()) or 0.01, planning=planning, said=("busy",)
    )
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    assert (found.chosen.plan.threads, found.reasons) == (before + 1, ("busy",))


def test_a_plan_is_raced_for_what_is_taken_while_planning_has_time():
    found, machine = fitted(lambda *_: 0.01, named=SIZES[-1:], raced=PLAIN.pin(allocator="keep"))
    assert found.chosen.plan.allocator == "keep"
    assert [asked[2] for asked in machine.asked if asked[0] == "plan"] == [False, True]
    # Of ten seconds half a one is for planning: too short for a race.
    found, machine = fitted(lambda *_: 0.01, seconds=10.0, named=SIZES[-1:])
    assert [asked[2] for asked in machine.asked if asked[0] == "plan"] == [False]


def test_for_a_device_that_is_not_here_evaluations_are_guessed():
    def costs(*_):
        pytest.fail("an evaluation is measured")

    steps = {"base": 0.001, "thin": 0.001, "tiny": 0.001}
    found, _ = fitted(lambda name, _: steps[name], costs=costs, planning=PlanRequest(on="H100"))
    assert found.network.name == "base"


def test_evaluations_cost_what_is_measured_on_the_size_that_is_taken():
    seen = []

    def costs(number, plan):
        seen.append(number)
        return EvaluationCosts(evaluation=0.1, test=2.0, more=1.0)

    found, _ = fitted(lambda *_: 0.05, costs=costs)
    assert seen == [2, 1]
    assert (found.network.test, found.network.more) == (2.0, 1.0)
    assert found.schedule.more_share == 1.0


def test_what_is_computed_once_is_no_part_of_a_test_that_is_cut():
    costs = EvaluationCosts(test=4.0, once=20.0)
    found, _ = fitted(lambda *_: 0.05, costs=lambda *_: costs)
    assert (found.network.test, found.network.startup) == (4.0, 20.0)
    assert (found.schedule.startup, found.schedule.test_share) == (20.0, 1.0)


def test_without_measured_costs_an_example_is_a_third_of_its_share_of_a_step():
    size = sizes(("net", 1.0, 30))[0]
    task = SimpleNamespace(name="net", valid=range(30), batch_size=10)
    machine = Machine(planning=PlanRequest(), started=0.0, seconds=100.0, step=lambda *_: 0.3)
    found = fit_time(machine, [dataclasses.replace(size, task=lambda: task)])
    assert found.network.evaluation == pytest.approx(0.3)


def test_too_short_a_time_is_said_with_the_one_that_would_do():
    found, _ = fitted(lambda *_: 10.0)
    assert found.schedule.num_steps == 6  # to begin with
    assert found.reasons[-1].startswith("warning: too short a time to learn from: 6 steps of the")
    assert found.length is not None
    found, _ = fitted(lambda *_: 10.0, world_size=2)
    assert (found.schedule.num_steps < 30, found.length) == (True, None)


def test_evaluations_at_a_stated_interval_are_part_of_a_steps_pace():
    size = dataclasses.replace(sizes(("net", 1.0, 30))[0], evaluation_interval=10)
    machine = Machine(planning=PlanRequest(), started=0.0, seconds=100.0, step=lambda *_: 0.1)
    found = fit_time(
        machine, [size], lambda *_: EvaluationCosts(evaluation=2.0), least_evaluation_share=1.0
    )
    assert found.network.pace == pytest.approx(0.1 + 0.2)
    assert 60.0 < found.schedule.num_steps * 0.3 < 90.0
    # Half as fast as thought: so are the evaluations.
    assert found.length is not None
    assert found.length.num_steps(30, 0.2) <= 30 + 100 / 0.6


def test_a_size_that_has_no_room_under_the_smallest_ones_plan_gets_its_own():
    room = {"is_there": False}

    def step(name, _):
        if name == "thin" and not room["is_there"]:
            room["is_there"] = True
            raise torch.OutOfMemoryError("no room")
        return {"thin": 0.05, "tiny": 0.01}[name]

    found, machine = fitted(step, named=SIZES[1:])
    assert found.network.name == "thin"
    assert ("plan", "thin", False, 0.1) in machine.asked
    with pytest.raises(ValueError, match="else"):
        fitted(lambda *_: int("else"), named=SIZES[1:])
