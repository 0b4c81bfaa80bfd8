"""Prepares trials for training: their tasks, what they share with others, and how far they go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from volano.errors import TaskError, reason_of
from volano.packing import Member
from volano.study.workers.messages import Assignment, Trial, TrialOutcome
from volano.study.workers.same_data import check_same_data
from volano.study.workers.shared_features import SharedFeatures
from volano.study.workers.structure_index import BuiltTask, StructureIndex
from volano.task import Duration, Task, describe_data

Build = Callable[[Any], Task]
# Models that are in memory at once while their tasks are compared.
_MOST_SPECIMENS = 32


def check_task(task: Any) -> None:
    """Raises TaskError unless trials that build such a thing can be compared at rungs."""
    if not isinstance(task, Task):
        raise TaskError("build(trial) must return a volano.Task", got=type(task).__name__)
    if task.valid is None:
        raise TaskError(
            "The tasks of a study must have a validation set: rungs compare its figures",
            got="a task without valid",
            remedy="Give `valid`",
        )


class _Made(NamedTuple):
    """A trial's parameters, what was built of them, and its kind."""

    params: Mapping[str, Any]
    task: Task
    kind: int


class Cohort(NamedTuple):
    """The key that the members of a pack have in common: their kind, where they stand and how far
    they go, in steps."""

    kind: int
    step: int
    until: int


@dataclass(frozen=True, kw_only=True)
class TrialTask:
    """A trial with its task."""

    trial: Trial
    task: Task
    standing: Cohort

    @property
    def number(self) -> int:
        """The trial's."""
        return self.trial.number

    def member(self) -> Member:
        """Returns the trial as a member of a pack."""
        return Member(number=self.number, task=self.task, state=self.trial.state)


def step_of_rung(task: Task, share: float) -> int:
    """The optimizer step at which a rung stands for a task.

    The share of the task's steps, rounded up; of its epochs, rounded up to whole ones, if it has
    at least as many of them as ``1 / share``, so that rungs fall on the ends of epochs. 1.0 is the
    end of the run.
    """
    assert isinstance(task.duration, Duration)
    per_epoch, num_steps = task.steps_per_epoch, task.num_steps
    epochs = num_steps / per_epoch
    if round(epochs * share, 6) >= 1.0:  # rounded first: a third of 3.0 is below 1 in binary
        return min(num_steps, math.ceil(round(epochs * share, 6)) * per_epoch)
    return min(num_steps, max(1, math.ceil(round(num_steps * share, 6))))


class TrialTasks:
    """Makes the candidates of a study: each trial's task by the study's build function, all on the
    data of the first.

    Args:
        build: ``(trial) -> Task``.
        shared: what makes of several tasks with a frozen trunk tasks on its features; None trains
            all as they are.
    """

    def __init__(self, build: Build, shared: SharedFeatures | None = None) -> None:
        self._build, self._shared = build, shared
        self._num_known = 0
        self._kinds = StructureIndex()
        self._made: dict[int, _Made] = {}
        self._first: tuple[int, Task] | None = None
        self.data: dict[str, Any] | None = None  # of the first trial, in words and digests

    def of(self, assignment: Assignment) -> tuple[list[TrialTask], list[TrialOutcome]]:
        """Returns the candidates of an assignment's trials, and the outcomes of trials that cannot
        be made ready.

        A trial that was in the assignment before has the same Task object, if its parameters
        are the same.

        Raises:
            ExploreError: a trial's task is on other data than the study's other trials.
        """
        trials = {trial.number: trial for trial in assignment.trials}
        kept = {number: made for number, made in self._made.items() if number in trials}
        self._made = {
            number: made for number, made in kept.items() if made.params == trials[number].params
        }
        failed: list[TrialOutcome] = []
        new = [trial for trial in assignment.trials if trial.number not in self._made]
        for start in range(0, len(new), _MOST_SPECIMENS):
            failed += self._make(new[start : start + _MOST_SPECIMENS])
        return [
            TrialTask(
                trial=trial, task=made.task, standing=_standing(trial, made, assignment.share)
            )
            for trial in assignment.trials
            if (made := self._made.get(trial.number)) is not None
        ], failed

    def reasons(self, kind: int) -> tuple[str, ...]:
        """Returns why a kind differs from the others so far, in words."""
        return self._kinds.reasons(kind)

    def structure(self, kind: int) -> str:
        """Names a kind, alike in each worker of a study."""
        return self._kinds.name(kind)

    def first(self, kind: int) -> BuiltTask:
        """The first of a kind."""
        return self._kinds.first(kind)

    def _make(self, trials: Sequence[Trial]) -> list[TrialOutcome]:
        self._num_known += len(trials)
        ready: list[tuple[Trial, BuiltTask]] = []
        failed: list[TrialOutcome] = []
        for trial in trials:
            try:
                task = self._built(trial)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a person's code fails as it will
                failed.append(failure_of(trial, reason_of(error)))
                continue
            task = self._on_one_data(task, trial.number)
            try:
                ready.append((trial, self._prepared(trial, task)))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the same
                failed.append(failure_of(trial, reason_of(error)))
        kinds = self._kinds.of([built for _, built in ready]) if ready else []
        for (trial, built), kind in zip(ready, kinds, strict=True):
            self._made[trial.number] = _Made(dict(trial.params), built.task, kind)
        return failed

    def _prepared(self, trial: Trial, task: Task) -> BuiltTask:
        """Builds a trial's task; on the features of its frozen trunk if there are others to share
        them with, and if its state, where it has one, is of such a task."""
        if self._shared is None or (self._num_known == 1 and trial.state is None):
            return BuiltTask.of(task)
        own = None if trial.state is None else BuiltTask.of(task)
        if own is not None and _holds(own, trial):
            return own  # it began with its whole model
        shared = self._shared.of(task, is_asked=own is not None)
        try:
            built = BuiltTask.of(shared)
        except Exception:
            if shared is task:
                raise
            self._shared.tell("its parameter groups or optimizer need the frozen layers")
            return BuiltTask.of(task)
        if shared is task:
            self._shared.tell_why_not(task, built.model)
        return built if own is None or _holds(built, trial) else own

    def _built(self, trial: Trial) -> Task:
        import optuna

        task = self._build(optuna.trial.FixedTrial(dict(trial.params), number=trial.number))
        check_task(task)
        if task.keep == "best":
            raise TaskError(
                "The trials of a study must keep their last weights, by which they are compared",
                got="a task with keep='best'",
                remedy="Leave it out here, and train the best trial with it",
            )
        return task

    def _on_one_data(self, task: Task, number: int) -> Task:
        if self._first is None:
            self._first = (number, task)
            self.data = {"data": describe_data(task.data), "valid": describe_data(task.valid)}
        first_number, first = self._first
        if task.data is first.data and task.valid is first.valid:
            return task
        check_same_data(task, number, first, first_number)
        # What is the same need be in memory, and be read, only once.
        return replace(task, data=first.data, valid=first.valid)


def failure_of(trial: Trial, reason: str) -> TrialOutcome:
    """The outcome of a trial that has failed: it stands where it stood."""
    step = 0 if trial.state is None else trial.state["step"]
    return TrialOutcome(
        number=trial.number, step=step, epoch=math.nan, metrics={}, training_loss=math.nan,
        failure=reason
    )  # fmt: skip


def _holds(built: BuiltTask, trial: Trial) -> bool:
    """Checks whether a trial's state is one of this model."""
    assert trial.state is not None
    return built.model.state_dict().keys() == trial.state["model"].keys()


def _standing(trial: Trial, made: _Made, share: float) -> Cohort:
    step = 0 if trial.state is None else trial.state["step"]
    return Cohort(kind=made.kind, step=step, until=max(step, step_of_rung(made.task, share)))
