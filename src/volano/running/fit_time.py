"""Fits a training into its time: which of several networks with which batch, under which plan, for
how many steps; from steps that are timed here, a few at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from volano.plan import Plan
from volano.planner import PlanResult
from volano.running.busy_cores import threads_of
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import (
    LEAST_STEPS,
    NetworkCosts,
    RunCosts,
    TimeSchedule,
    make_schedule,
    said_of_time,
)
from volano.task import Task
from volano.training import LengthRule, StepTime, is_out_of_memory

# Sizes that are timed after the first: the guess from another size is right within a factor of two.
_MOST_TIMED = 3
# With less time left for it, no candidate can be timed and checked.
_LEAST_RACE_SECONDS = 1.0
# An example costs an evaluation a forward pass; a step, a backward pass of twice as much too.
_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True, kw_only=True)
class TrainingSize:
    """A network with a batch, as one of those among which the time decides.

    Attributes:
        name: its name, in words.
        task: makes its Task, of any number of steps.
        cost: the cost of a step, in one unit for all sizes.
        example_cost: the cost of the prediction of an example, likewise.
        least_steps: the number of steps from which it is worth its size; 0 of one that is solved
            before the first step.
        most_steps: the number of steps after which more are of no use.
        evaluation_interval: the steps between evaluations, if somebody has said how many.
    """

    name: str
    task: Callable[[], Task]
    cost: float = 1.0
    example_cost: float = 1.0
    least_steps: int = LEAST_STEPS
    most_steps: int = 10**9
    evaluation_interval: int | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationCosts:
    """The seconds of an evaluation of all validation examples, of the cheapest final test of all
    test examples, of what the wanted final test does beyond that, and of what is computed once,
    whatever is tested."""

    evaluation: float = 0.0
    test: float = 0.0
    more: float = 0.0
    once: float = 0.0

    def times(self, factor: float) -> EvaluationCosts:
        """Returns the costs of a network whose predictions cost ``factor`` times as much."""
        return EvaluationCosts(
            evaluation=factor * self.evaluation, test=factor * self.test, more=factor * self.more,
            once=factor * self.once,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FittedSize:
    """The size, the plan and the number of steps that a time comes to.

    Attributes:
        number: the place of the size among those that were given.
        chosen: its plan.
        schedule: the use of the time, with the number of steps.
        network: the measured costs behind it.
        reasons: what a person should know.
        length: the rule by which the run looks at its number of steps again, if it may.
    """

    number: int
    chosen: PlanResult
    schedule: TimeSchedule
    network: NetworkCosts
    reasons: tuple[str, ...]
    length: LengthRule | None

    def pace(self, limit: TimeLimit, most: str = "as many as are of use") -> str:
        """Returns in words why there are so many steps; ``most``: if more are of no use."""
        is_most = self.schedule.num_steps == self.network.most_steps
        length = most if is_most else f"{limit.seconds / 60:g} min"
        return f"{self.network.step * 1e3:.3g} ms a step, {length}"


def fit_time(
    limit: TimeLimit,
    sizes: Sequence[TrainingSize],
    evaluation_costs: Callable[[int, Plan], EvaluationCosts] | None = None,
    **testing: Any,
) -> FittedSize:
    """Finds the size, its plan and its number of steps.

    The smallest size is timed first, then those that the time seems to be enough for. A plan is
    raced for the one that is taken, with what is left of planning's share.

    Args:
        limit: the time.
        sizes: the sizes among which it decides, the largest first.
        evaluation_costs: measures the costs of evaluations of a size under a plan; None guesses
            them from the time of its steps, as is done for a device that is not here.
        testing: fields of :class:`RunCosts` about evaluations and the final test.
    """
    with threads_of(limit.planning):
        return _TimeFitting(limit, sizes, evaluation_costs, testing).found()


class _TimeFitting:
    """The state of one search; its methods stand in the order of the search."""

    def __init__(
        self,
        limit: TimeLimit,
        sizes: Sequence[TrainingSize],
        evaluation_costs: Callable[[int, Plan], EvaluationCosts] | None,
        testing: dict[str, Any],
    ) -> None:
        self._limit, self._sizes, self._testing = limit, sizes, testing
        is_here = limit.planning.on is None
        self._evaluation_costs = (evaluation_costs if is_here else None) or self._guessed
        self._begun = limit.left()
        self._timed: dict[int, StepTime] = {}
        self._evaluated: tuple[int, EvaluationCosts] = (len(sizes) - 1, EvaluationCosts())

    def found(self) -> FittedSize:
        """Finds all of it."""
        number = len(self._sizes) - 1
        quick = self._plan(number, is_raced=False)
        self._time(number, quick.plan)
        self._evaluate(number, quick.plan)
        number = self._schedule().network
        while number not in self._timed and len(self._timed) <= _MOST_TIMED:
            self._time(number, quick.plan)
            number = self._schedule().network
        chosen = self._settled(number, quick)
        if number != self._evaluated[0] or chosen.plan.prefix != quick.plan.prefix:
            self._evaluate(number, chosen.plan)
        schedule = make_schedule(self._costs([number]), self._limit.seconds)
        network = self._network(number)
        chosen = dataclasses.replace(chosen, step=self._timed[number].step)
        return FittedSize(
            number=number,
            chosen=chosen,
            schedule=schedule,
            network=network,
            reasons=(*self._limit.said, *said_of_time(schedule)),
            # The steps of a first epoch in which a frozen prefix is computed say nothing of later.
            length=None
            if chosen.plan.prefix == "cached"
            else self._limit.length_rule(schedule, network),
        )

    def _plan(self, number: int, *, is_raced: bool) -> PlanResult:
        return self._limit.choose_plan(
            self._sizes[number].task(),
            seconds=max(1.0, self._limit.left()),
            is_raced=is_raced,
            planning_seconds=self._limit.planning_left(self._begun),
        )

    def _time(self, number: int, plan: Plan) -> None:
        task = self._sizes[number].task()
        try:
            self._timed[number] = self._limit.measure_step(task, plan)
        except Exception as error:
            # The plan of a smaller size says nothing of this one's memory.
            if not is_out_of_memory(error):
                raise
            own = self._plan(number, is_raced=False).plan
            self._timed[number] = self._limit.measure_step(task, own)

    def _evaluate(self, number: int, plan: Plan) -> None:
        self._evaluated = number, self._evaluation_costs(number, plan)

    def _guessed(self, number: int, plan: Plan) -> EvaluationCosts:  # noqa: ARG002 - as measured
        task = self._sizes[number].task()
        num_valid = 0 if task.valid is None else len(task.valid)
        step = self._timed[number].step
        return EvaluationCosts(evaluation=_FORWARD_SHARE * step * num_valid / task.batch_size)

    def _schedule(self) -> TimeSchedule:
        return make_schedule(self._costs(range(len(self._sizes))), self._limit.seconds)

    def _costs(self, numbers: Sequence[int]) -> RunCosts:
        left = self._limit.left()
        return RunCosts(
            spent=self._limit.seconds - left,
            planning=self._begun - left,
            writing=self._limit.writing,
            networks=[self._network(number) for number in numbers],
            is_revised=self._limit.world_size == 1,
            **self._testing,
        )

    def _network(self, number: int) -> NetworkCosts:
        """Returns the costs of a size: timed, or guessed from the nearest that was."""
        size = self._sizes[number]
        near = min(self._timed, key=lambda other: abs(other - number))
        step = self._timed[near].step * size.cost / self._sizes[near].cost
        place, costs = self._evaluated
        costs = costs.times(size.example_cost / self._sizes[place].example_cost)
        own = dataclasses.asdict(costs)
        return NetworkCosts(
            name=size.name,
            step=step,
            startup=self._timed[near].startup + own.pop("once"),
            **own,
            evaluating=costs.evaluation / (size.evaluation_interval or math.inf),
            least_steps=size.least_steps,
            most_steps=size.most_steps,
        )

    def _settled(self, number: int, quick: PlanResult) -> PlanResult:
        """Returns the plan of the size that is taken, and times its steps under it."""
        is_open = self._limit.planning.plan is None
        is_raced = is_open and self._limit.planning_left(self._begun) >= _LEAST_RACE_SECONDS
        if number == len(self._sizes) - 1 and not is_raced:
            return quick
        chosen = self._plan(number, is_raced=is_raced)
        told = chosen.explanation
        if chosen.step is not None and told is not None and told.origin == "raced":
            self._timed[number] = StepTime(step=chosen.step, startup=chosen.startup)
        elif chosen.plan != quick.plan or number not in self._timed:
            self._time(number, chosen.plan)
        return chosen
