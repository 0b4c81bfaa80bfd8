"""Which size of network a time is enough for, on simulated machines."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from volano import Plan
from volano.planner import PlanRequest, PlanResult
from volano.running import fit_time as module
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

    def choose_plan(self, task, *, is_raced, planning, **_):
        pins = (planning or self.planning).pins
        self.asked.append(("plan", task.name, is_raced, 0.1))
        return PlanResult(plan=(self.raced if is_raced else PLAIN).pin(**pins))

    def measure_step(self, task, plan):
        seconds = self.step(task.name, plan.threads)
        self.asked.append(("step", task.name, plan.threads, 3 * seconds))
        return SimpleNamespace(step=seconds, startup=0.0)


@pytest.fixture(autouse=True)
def agreeing(monkeypatch):
    """A guard that passes everything, and a machine of four cores."""
    passed = {"all": True}
    monkeypatch.setattr(
        module, "check_parity", lambda *_, **__: SimpleNamespace(passed=passed["all"])
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    return passed


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
    machine = Machine(planning=PlanRequest(), started=0.0, seconds=seconds, step=step, **fields)
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


def test_beside_other_processes_fewer_threads_and_then_what_they_allow(agreeing):
    """Two and more threads wait for a core: any size seems too slow until one is tried."""
    alone = {"base": 0.2, "thin": 0.05, "tiny": 0.01}

    def step(name, threads):
        return 1.0 if threads is None else threads * alone[name]

    found, _ = fitted(step)
    assert (found.network.name, found.chosen.plan.threads) == ("thin", 1)
    assert found.reasons[0].startswith("threads=1: 50 ms a step")
    agreeing["all"] = False
    found, _ = fitted(step)
    assert found.chosen.plan.threads is None
    assert found.network.step == 1.0
    found, _ = fitted(lambda *_: 0.1)
    assert (found.chosen.plan.threads, found.reasons) == (None, ())


def test_what_the_user_says_of_threads_stands():
    machine = Machine(
        planning=PlanRequest(forbid={"threads": (1,)}), started=0.0, seconds=100.0,
        step=lambda _, threads: 0.1 if threads is None else 0.01,
    )  # fmt: skip
    assert fit_time(machine, sizes(*SIZES)).chosen.plan.threads is None


def test_a_plan_is_raced_for_what_is_taken_while_planning_has_time():
    found, machine = fitted(lambda *_: 0.01, named=SIZES[-1:], raced=PLAIN.pin(allocator="keep"))
    assert found.chosen.plan.allocator == "keep"
    assert [asked[2] for asked in machine.asked if asked[0] == "plan"] == [False, True]
    # Of ten seconds half a one is for planning: too short for a race.
    found, machine = fitted(lambda *_: 0.01, seconds=10.0, named=SIZES[-1:])
    assert [asked[2] for asked in machine.asked if asked[0] == "plan"] == [False]


def test_evaluations_cost_what_is_measured_on_the_size_that_is_taken():
    seen = []

    def costs(number, plan):
        seen.append(number)
        return EvaluationCosts(evaluation=0.1, test=2.0, more=1.0)

    found, _ = fitted(lambda *_: 0.05, costs=costs)
    assert seen == [2, 1]
    assert (found.network.test, found.network.more) == (2.0, 1.0)
    assert found.schedule.more_share == 1.0


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
