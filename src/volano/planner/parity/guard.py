"""The guard as the search needs it: what is computed once for a task is kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property

from volano.device import Device
from volano.errors import reason_of
from volano.plan import Plan
from volano.planner.parity.batch_split import BatchSplit, is_divisible
from volano.planner.parity.bisect_knobs import find_fault
from volano.planner.parity.check import Parity, check_parity
from volano.planner.parity.evaluation import EvaluationTrials
from volano.planner.parity.reference import Reference
from volano.task import Task

# The reference is cut to as few examples as the seconds left for planning allow, but never below
# this: a guard that sees nothing is no guard.
_LEAST_SECONDS = 1.0


class ParityGuard:
    """The guard of one task's candidates.

    Args:
        task: the task to plan.
        device: the device on which the candidates run.
        seconds_left: returns the seconds left for the guard's work.

    Attributes:
        most_seconds: limit for one candidate's check, whatever is left.
        most_examples: limit of the examples that the guard looks at, if memory is tight; None for
            no limit.
    """

    def __init__(self, task: Task, device: Device, seconds_left: Callable[[], float]) -> None:
        self._task, self._device, self._seconds_left = task, device, seconds_left
        self._evaluations = EvaluationTrials(task)
        self.most_seconds = math.inf
        self.most_examples: int | None = None

    @cached_property
    def divisible(self) -> BatchSplit:
        """Measures whether the task's batch may be cut into micro-batches."""
        try:
            return is_divisible(self._task, self._device)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything; a batch that cannot be checked stays whole
            return BatchSplit(
                yes=False, reason=f"it cannot be looked at: {reason_of(error)}", difference=math.inf
            )

    @property
    def may_split(self) -> bool | None:
        """The measured answer whether the batch may be split; None if it was not asked for."""
        return self.__dict__["divisible"].yes if "divisible" in self.__dict__ else None

    @cached_property
    def reference(self) -> Reference:
        """The reference with which candidates are compared."""
        seconds = max(_LEAST_SECONDS, min(self.most_seconds, self._seconds_left()))
        return Reference(
            self._task, self._device.name, seconds=seconds, most_examples=self.most_examples
        )

    def parity(self, plan: Plan) -> Parity:
        """Checks whether a plan computes the same as plain eager; a plan that cannot be checked
        does not pass.

        Float64 and whole passes take more memory than the plan. If they run out of it, fewer
        examples are compared.
        """
        failure = self._evaluations.failure(plan)
        if failure is not None:
            return Parity(passed=False, reason=f"an evaluation fails with {failure}")
        try:
            reference = self.reference
            while True:
                reference.ran_out = False
                found = check_parity(self._task, plan, reference=reference)
                if found.passed or not reference.ran_out:
                    return found
                if not reference.halve():
                    return dataclasses.replace(
                        found, reason=f"the guard runs out of memory: {found.reason}"
                    )
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return Parity(passed=False, reason=f"the guard cannot look at it: {reason_of(error)}")

    def knobs_at_fault(self, plan: Plan) -> tuple[str, ...]:
        """Returns the knobs because of which a plan fails; empty if that cannot be found out."""
        if knobs := self._evaluations.knobs_at_fault(plan):
            return knobs
        try:
            return find_fault(self._task, plan, self.reference)
        except Exception:  # noqa: BLE001 - the plan is rejected in any case
            return ()
