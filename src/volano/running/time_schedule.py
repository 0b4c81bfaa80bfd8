"""Shares out the minutes of a run: from measured costs to a schedule, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from volano.report.verdict import LEAST_STEPS

# The largest shares of the minutes that planning, evaluations during the run and the final test may
# take. With what is kept in reserve a tenth remains for reading, start-up and writing before
# training gets less than 65 %.
PLANNING_SHARE, EVALUATION_SHARE, TEST_SHARE = 0.05, 0.06, 0.08
# What is kept in reserve for a machine that slows down late: a share of the minutes, and of a run
# of seconds so many of them, for a single slow phase is a larger part of it.
_RESERVE_SHARE, _LEAST_RESERVE_SECONDS, _LARGEST_RESERVE_SHARE = 0.05, 2.5, 0.08
# Files, pictures, the report and the interpreter's end: 0.8 s of processor time, more on a shared
# machine (docs/log.md).
WRITING_SECONDS = 2.0
# A run that looks at its number of steps again begins with so many at least: a first timing from a
# slow moment costs it nothing, and it ends as soon as its own steps say that there is no time.
_LEAST_TO_BEGIN_WITH = 6
# The number of steps is looked at again after this share of the training; of one of seconds after a
# second, or this larger share: less is no timing, and a test that is cut for it says less.
_REVISION_SHARE, _LARGEST_REVISION_SHARE, _REVISION_SECONDS = 0.1, 0.3, 1.0
# The first step of a run allocates and loads: so many are made before its timing is believed.
_STEPS_TO_REVISE = 5
# A run is lengthened as if its steps took up to so many times what they took at first.
_MARGIN = 1.1
# Later a run looks at its time after each such share of its training, of so many seconds at least.
LOOK_SHARE, LEAST_LOOK_SECONDS = 0.05, 1.0
# Timings that differ by less are one.
_SAME = 0.05


@dataclass(frozen=True, kw_only=True)
class NetworkCosts:
    """The seconds that a network of one size (and batch) costs on this machine.

    Attributes:
        name: its name, in words.
        step: seconds of a training step.
        startup: seconds that are paid once before the first step.
        evaluation: seconds of an evaluation of the whole validation set.
        evaluating: seconds of evaluations for each step, if somebody has said how often they are
            made.
        test: seconds of the cheapest final test of all test examples (one view, plain windows).
        more: seconds that the wanted final test takes beyond that (more views, generated clips).
        least_steps: the number of steps from which this network is worth its size; 0 of one that
            is solved before the first step.
        most_steps: the number of steps after which more are of no use.
    """

    name: str
    step: float
    startup: float = 0.0
    evaluation: float = 0.0
    evaluating: float = 0.0
    test: float = 0.0
    more: float = 0.0
    least_steps: int = LEAST_STEPS
    most_steps: int = 10**9

    @property
    def pace(self) -> float:
        """The seconds of a step with its share of evaluations."""
        return self.step + self.evaluating


@dataclass(frozen=True, kw_only=True)
class RunCosts:
    """The measured costs of a run.

    Attributes:
        spent: seconds that have passed: start, reading, and what was planned already.
        planning: of these, seconds of planning.
        writing: seconds for the files and the report at the end.
        networks: networks among which the time decides, the largest first.
        num_evaluations: evaluations that are wanted.
        least_more: the smallest share of what the wanted final test does beyond the cheapest that
            is of use.
        least_test_share, least_evaluation_share: the smallest share of the examples that says
            anything.
        is_revised: whether the run looks at its number of steps again.
    """

    spent: float
    planning: float = 0.0
    writing: float = WRITING_SECONDS
    networks: Sequence[NetworkCosts]
    num_evaluations: int = 1
    least_more: float = 1.0
    least_test_share: float = 0.1
    least_evaluation_share: float = 0.1
    is_revised: bool = False


@dataclass(frozen=True, kw_only=True)
class TimeSchedule:
    """The use of the minutes of a run.

    Attributes:
        network: the place of the network among those that were given.
        num_steps: training steps.
        num_evaluations: evaluations during the run, the last one included.
        evaluation_share: the share of the validation examples that each of them looks at.
        more_share: the share of what the wanted final test does beyond the cheapest.
        test_share: the share of the test examples that it looks at.
        planning: seconds that planning may still take.
        training, evaluation, test, startup, writing: seconds of these phases.
        warning: what a person should know of a time that is too short, or None.
    """

    network: int
    num_steps: int
    num_evaluations: int
    evaluation_share: float
    more_share: float
    test_share: float
    planning: float
    training: float
    evaluation: float
    test: float
    startup: float
    writing: float
    warning: str | None

    @property
    def kept(self) -> float:
        """The seconds that must be left when the last step is made."""
        return self.test + self.writing


def reserve_seconds(seconds: float) -> float:
    """Returns the seconds that a run of so many keeps in reserve."""
    least = min(_LEAST_RESERVE_SECONDS, _LARGEST_RESERVE_SHARE * seconds)
    return max(_RESERVE_SHARE * seconds, least)


def make_schedule(costs: RunCosts, seconds: float) -> TimeSchedule:
    """Returns the schedule of a run of so many seconds in all.

    The network is the first that gets its ``least_steps``; if none does, the last. Evaluations and
    final test get a share of the seconds, and no more than they need: so a longer time never gives
    fewer steps of the same network.
    """
    chosen = next(
        (
            number
            for number, network in enumerate(costs.networks)
            if _affordable(network, costs, seconds) >= network.least_steps
        ),
        len(costs.networks) - 1,
    )
    network = costs.networks[chosen]
    affordable = max(0, _affordable(network, costs, seconds))
    enough = min(LEAST_STEPS, network.least_steps)
    least = min(network.most_steps, _LEAST_TO_BEGIN_WITH) if enough and costs.is_revised else 1
    num_steps = max(least, min(network.most_steps, affordable))
    evaluations = _evaluation_seconds(network, costs, seconds)
    num_evaluations, evaluation_share = 1, 1.0
    if network.evaluation > 0.0:
        num_evaluations = max(1, min(costs.num_evaluations, int(evaluations / network.evaluation)))
        evaluation_share = min(1.0, evaluations / network.evaluation)
    elif costs.num_evaluations:
        num_evaluations = costs.num_evaluations
    more_share, test_share = _test_shares(network, costs, seconds)
    return TimeSchedule(
        network=chosen,
        num_steps=num_steps,
        num_evaluations=min(num_evaluations, num_steps),
        evaluation_share=evaluation_share,
        more_share=more_share,
        test_share=test_share,
        planning=max(0.0, PLANNING_SHARE * seconds - costs.planning),
        training=num_steps * network.step,
        evaluation=min(num_evaluations, num_steps) * evaluation_share * network.evaluation,
        test=test_share * network.test + more_share * network.more,
        startup=network.startup,
        writing=costs.writing,
        # What was solved before the first step needs none to learn from.
        warning=_warning(network, costs, seconds, num_steps) if affordable < enough else None,
    )


def said_of_time(schedule: TimeSchedule) -> tuple[str, ...]:
    """Returns what a person should know of a schedule, as reasons of a run."""
    return () if schedule.warning is None else (f"warning: {schedule.warning}",)


def minutes_that_do(network: NetworkCosts, costs: RunCosts) -> float:
    """Returns the least minutes, in tenths, in which a network gets ``LEAST_STEPS`` steps."""
    steps = min(LEAST_STEPS, network.most_steps)
    minutes = math.ceil(10 * (costs.spent + steps * network.pace) / 60) / 10
    while _affordable(network, costs, 60 * minutes) < steps:
        minutes = math.ceil(10 * max(1.05 * minutes, minutes + 0.05)) / 10
    return minutes


def revision_point(num_steps: int, training_seconds: float) -> tuple[int, float]:
    """Returns the step, and the seconds of training, at the earlier of which the number of steps is
    looked at again; five steps are made before, or all but one of a run of fewer."""
    least = max(2, min(_STEPS_TO_REVISE, num_steps - 1))
    share = min(_LARGEST_REVISION_SHARE, _REVISION_SECONDS / max(training_seconds, 1e-9))
    share = max(_REVISION_SHARE, share)
    return max(least, math.ceil(share * num_steps)), share * training_seconds


def revised_steps(
    *,
    step: int,
    num_steps: int,
    expected: float,
    measured: float,
    left: float,
    kept: float,
    most_steps: int,
) -> int:
    """Returns the number of steps of a run that has made ``step`` of ``num_steps``.

    Args:
        step: steps made.
        num_steps: steps by the first timing.
        expected: seconds of a step by the first timing.
        measured: seconds of a step as the run has made them.
        left: seconds left of the whole time.
        kept: seconds of what is still to be done besides training, by the first timing; a machine
            that is slower takes longer over that too.
        most_steps: the number of steps after which more are of no use.
    """
    slowdown = max(1.0, measured / expected)
    # Both timings count if the later one is the faster: a quick second is not the pace of a run.
    pace = max(measured, min(_MARGIN * measured, (measured + expected) / 2))
    more = int((left - slowdown * kept) / pace)
    if abs(measured / expected - 1.0) < _SAME and step + more >= (1.0 - _SAME) * num_steps:
        return num_steps
    return max(step + 1, min(most_steps, step + more))


def steps_at_later_look(
    *,
    step: int,
    num_steps: int,
    expected: float,
    measured: float,
    left: float,
    kept: float,
    reserve: float,
    most_steps: int,
) -> int:
    """Returns the number of steps of a run that has made ``step`` of ``num_steps`` and looks at its
    time again: fewer, if it would need more than half of its reserve; more, if the time left is
    enough for them and it has not made half; else as it was.

    Args:
        expected: seconds of a step by the first timing.
        measured: seconds of a step as the run makes them now.
        left: seconds left of the whole time, the reserve not among them.
        kept: seconds of what is still to be done besides training, by the first timing.
        reserve: seconds kept in reserve.
        most_steps: the number of steps after which more are of no use.
    """
    for_steps = left - max(1.0, measured / expected) * kept
    enough_for = step + int(for_steps / measured)
    if (num_steps - step) * measured > for_steps + reserve / 2:
        return min(num_steps, max(step + 1, enough_for))
    # The second half of a schedule has begun to settle: it is not stretched.
    if step <= num_steps / 2 and enough_for >= (1.0 + _SAME) * num_steps:
        return max(num_steps, min(most_steps, enough_for))
    return num_steps


def _affordable(network: NetworkCosts, costs: RunCosts, seconds: float) -> int:
    planning = max(0.0, PLANNING_SHARE * seconds - costs.planning)
    others = costs.spent + planning + network.startup + costs.writing + reserve_seconds(seconds)
    others += _evaluation_seconds(network, costs, seconds) + _test_seconds(network, costs, seconds)
    return int((seconds - others) / network.pace)


def _evaluation_seconds(network: NetworkCosts, costs: RunCosts, seconds: float) -> float:
    wanted = costs.num_evaluations * network.evaluation
    least = min(1.0, costs.least_evaluation_share) * network.evaluation
    return max(least, min(wanted, EVALUATION_SHARE * seconds))


def _test_seconds(network: NetworkCosts, costs: RunCosts, seconds: float) -> float:
    least = min(1.0, costs.least_test_share) * network.test
    return max(least, min(network.test + network.more, TEST_SHARE * seconds))


def _test_shares(network: NetworkCosts, costs: RunCosts, seconds: float) -> tuple[float, float]:
    """Returns the share of what the wanted final test does beyond the cheapest, and of its
    examples."""
    tested = _test_seconds(network, costs, seconds)
    if tested < network.test + costs.least_more * network.more:
        return 0.0, min(1.0, tested / network.test) if network.test else 1.0
    if not network.more:
        return 1.0, 1.0
    return min(1.0, max(costs.least_more, (tested - network.test) / network.more)), 1.0


def _warning(network: NetworkCosts, costs: RunCosts, seconds: float, num_steps: int) -> str:
    steps = "one step" if num_steps == 1 else f"{num_steps} steps"
    return (
        f"too short a time to learn from: {steps} of the {network.name} in {seconds / 60:g} min; "
        f"give {minutes_that_do(network, costs):g} minutes or more"
    )
