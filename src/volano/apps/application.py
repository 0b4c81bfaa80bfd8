"""The contract of an application: what one gives, so that the verbs (train, resume, explain,
explore, ...) do the rest.

A fourth kind of application is a subclass of :class:`Application` in a folder of its own, with its
options and, if it can be used afterwards, a subclass of :class:`TrainedModel`; ``examples/table``
shows one.
"""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from volano.apps.options import DeclaredOptions, Options
from volano.apps.time_schedule import (
    PLANNING_SHARE,
    RESERVE_SHARE,
    NetworkCosts,
    TimeSchedule,
    revised_steps,
    revision_point,
)
from volano.data import Fault
from volano.data.sources import SPLITS_NAME, SplitRecord
from volano.device import Device
from volano.errors import CheckpointError, UsageError
from volano.plan import Plan
from volano.planner import PlanRequest, PlanResult, share_of_rank
from volano.planner.parity.check import check_parity
from volano.report.verdict import Score
from volano.running.checks import check_data_is_there
from volano.running.plan_run import choose_plan
from volano.running.trust import check_trusted
from volano.task import Task
from volano.training import LengthRule, Run, RunFolder, StepTime, measure_step_time

# The share of the time for which steps with fewer threads may be tried, and what they must save.
_THREADS_SHARE, _LEAST_SAVED = 0.1, 0.2
_SLOWER = 1.5
_GUARD_SECONDS = 1.0  # about what comparing fewer threads may take


@dataclass(frozen=True, kw_only=True)
class TimeLimit:
    """The time that a run may take, and how it is to be planned.

    Attributes:
        planning: the request for the plan.
        started: the time at which the whole call began, by ``time.perf_counter``.
        seconds: the seconds of the whole call.
        is_default: whether no length was asked for.
        world_size: ranks that will train together.
        check: raises UsageError unless the processes asked for can train a task under a plan.
    """

    planning: PlanRequest
    started: float
    seconds: float
    is_default: bool = False
    world_size: int = 1
    check: Callable[[Task, Plan], None] = lambda task, plan: None  # noqa: ARG005

    def left(self) -> float:
        """The seconds that are left of the call."""
        return self.seconds - (time.perf_counter() - self.started)

    def planning_left(self, begun: float) -> float:
        """The seconds that planning may still take; ``begun``: what was left of the call when it
        began."""
        return max(0.0, PLANNING_SHARE * self.seconds - (begun - self.left()))

    def choose_plan(
        self,
        task: Task,
        *,
        seconds: float | None = None,
        is_raced: bool = True,
        planning: PlanRequest | None = None,
        planning_seconds: float | None = None,
    ) -> PlanResult:
        """Chooses a plan; see :func:`volano.running.plan_run.choose_plan`."""
        planning = planning or self.planning
        if planning_seconds is not None:
            planning = dataclasses.replace(planning, planning_seconds=planning_seconds)
        return choose_plan(
            task, planning, world_size=self.world_size, seconds=seconds, is_raced=is_raced
        )

    def measure_step(self, task: Task, plan: Plan, seconds: float) -> StepTime:
        """Times steps of one rank's share for about ``seconds``."""
        return measure_step_time(*share_of_rank(task, plan, self.world_size), seconds=seconds)

    def with_fewer_threads(
        self, task: Task, chosen: PlanResult, timed: StepTime
    ) -> tuple[PlanResult, StepTime, tuple[str, ...]]:
        """Halves the threads of a plan as long as that saves time: beside other
        processes, the threads of a step wait for the one that has no core. Returns plan, timing and
        reasons."""
        plan, reasons = chosen.plan, ()
        # A timing of the race stands, unless the machine has become slower since.
        is_timed = chosen.step is not None and timed.step < _SLOWER * chosen.step
        is_open = plan.threads is None and self.planning.plan is None and not is_timed
        is_named = "threads" in self.planning.pins or "threads" in self.planning.forbid
        if not is_open or is_named or not Device(plan.device).is_cpu or self.world_size > 1:
            return chosen, timed, reasons
        threads = torch.get_num_threads() // 2
        while threads and timed.step < _THREADS_SHARE * self.seconds:
            fewer = self.measure_step(task, plan.pin(threads=threads), 0.0)
            if fewer.step > (1.0 - _LEAST_SAVED) * timed.step:
                break
            # Sums of fewer parts are rounded otherwise: guarded, as all that is no trusted knob.
            if not check_parity(task, plan.pin(threads=threads), seconds=_GUARD_SECONDS).passed:
                break
            reasons = (
                f"threads={threads}: {fewer.step * 1e3:.3g} ms a step instead of "
                f"{timed.step * 1e3:.3g} ms with more",
            )
            told = chosen.explanation
            if told is not None:
                told = dataclasses.replace(told, plan=plan.pin(threads=threads))
            chosen = dataclasses.replace(chosen, plan=plan.pin(threads=threads), explanation=told)
            timed, threads = fewer, threads // 2
        return chosen, timed, reasons

    def length_rule(self, schedule: TimeSchedule, network: NetworkCosts) -> LengthRule:
        """The rule by which the run looks at its number of steps again, early and once."""
        after_steps, after_seconds = revision_point(schedule.num_steps, schedule.training)

        def num_steps(step: int, measured: float) -> int:
            return revised_steps(
                step=step, num_steps=schedule.num_steps, expected=network.step, measured=measured,
                left=self.left() - RESERVE_SHARE * self.seconds,
                kept=schedule.kept + schedule.evaluation, most_steps=network.most_steps,
            )  # fmt: skip

        return LengthRule(after_steps=after_steps, after_seconds=after_seconds, num_steps=num_steps)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """An application with all that its run's length decides: the plan, the number of steps, and the
    reasons; and the rule by which the run revises its number of steps, if it may."""

    application: Application
    chosen: PlanResult
    num_steps: int
    reasons: tuple[str, ...] = ()
    length: LengthRule | None = None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The results of a run's final test.

    Attributes:
        metrics: figures for ``run.json``, as well as those of the training.
        notices: texts that a person should read.
        details: more for ``Run.details``.
        score: the figure by which the run is judged, with trivial answers; None if there is none.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    notices: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    score: Score | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of rows to be shown to a person; ``right`` are the columns of numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    right: Sequence[int] = ()


class Application(ABC):
    """An application: data that has been read, and the model to train on it.

    Class attributes:
        kind: its name, also of its runs' folders.
        options_type: its options.
        default_minutes: the length of a run if none is asked for.
        final_metric: a figure that only the final test gives.
        study_metric: by which trials are compared, and ``"minimize"`` or ``"maximize"``.
        data_name: what its data is, in words ("images"); so the list of unreadable files names it
            too.
        generate_device: where new things are made if no device is named; None is the accelerator.
        needs_scratch: whether reading writes files, which :meth:`write` moves into the run's
            folder.

    Attributes:
        options: the options as given, with what reading has resolved.
        origin: the source of the data, in words.
        faults: the examples that could not be read.
        notices: texts about the data that a person should read.
        is_held_out: whether Volano split the test data off; may be left out.
    """

    kind: ClassVar[str]
    options_type: ClassVar[type[Options]]
    default_minutes: ClassVar[float] = 3.0
    final_metric: ClassVar[str]
    study_metric: ClassVar[tuple[str, str]] = ("loss", "minimize")
    data_name: ClassVar[str] = "data"
    generate_device: ClassVar[str | None] = None
    needs_scratch: ClassVar[bool] = False

    options: Any
    origin: Any
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]

    # ---- what every application gives

    @classmethod
    @abstractmethod
    def read(cls, options: Any, scratch: Path | None = None) -> Self:
        """Reads the data.

        Args:
            options: the options of the application.
            scratch: a folder for files, if ``needs_scratch``.

        Raises:
            UsageError: the path does not exist.
            DataError: what lies there cannot be trained on.
        """

    @abstractmethod
    def steps_in(self, epochs: float) -> int:
        """Returns the optimizer steps in so many passes over the training data."""

    @abstractmethod
    def task(self, num_steps: int, recipe: Any = None) -> Task:
        """Builds the Task for a number of steps; ``recipe``: another than the one for that
        length."""

    @abstractmethod
    def recipe_of(self, num_steps: int) -> Any:
        """The numbers of a training of so many steps, as a dataclass; a study varies them."""

    # ---- what most applications leave as it is

    def write(self, folder: RunFolder, scratch: Path | None) -> None:
        """Writes into a new run's folder what is needed to use the model without the data; moves
        files of ``scratch``."""
        del folder, scratch

    def finish(self, run: Run, task: Task) -> Finished:
        """Tests the run of a task that has ended, and writes what a person looks at. A run that was
        stopped is not tested."""
        del run, task
        return Finished()

    @classmethod
    def load(cls, folder: RunFolder, device: str | None = None) -> TrainedModel:
        """Loads what a run has trained, from its folder alone.

        Raises:
            UsageError: the application does not say how.
        """
        del device
        raise UsageError(
            "A run can be used if its application has `load`",
            got=f"{cls.__name__} of {folder.path}",
        )

    def fit(self, limit: TimeLimit) -> Fitted:
        """Finds the plan and the number of steps that suit the time, once, before the first
        step."""
        reserve = 2.0 + 0.1 * limit.seconds
        chosen = limit.choose_plan(
            self.task(self.steps_in(1.0)), seconds=max(1.0, limit.left() - reserve)
        )
        step = limit.measure_step(
            self.task(self.steps_in(1.0)), chosen.plan, min(5.0, 0.02 * limit.seconds)
        )
        num_steps = max(1, int((limit.left() - step.startup - reserve) / step.step))
        reason = f"{num_steps:,} steps: {step.step * 1e3:.0f} ms a step, {limit.seconds / 60:g} min"
        return Fitted(application=self, chosen=chosen, num_steps=num_steps, reasons=(reason,))

    def fit_epochs(self, limit: TimeLimit, epochs: float) -> Fitted:
        """Finds the plan for a number of passes over the data."""
        num_steps = self.steps_in(epochs)
        return Fitted(
            application=self, chosen=limit.choose_plan(self.task(num_steps)), num_steps=num_steps
        )

    def fit_trial(
        self, seconds: float, seconds_per_step: Callable[[Task], float], device: Device
    ) -> tuple[Self, float]:
        """Fits the application to a trial of so many seconds; returns it and the seconds of a step
        of it."""
        del seconds, device
        return self, seconds_per_step(self.task(1000))

    def resolved(self, num_steps: int) -> dict[str, Any]:
        """The options that make the same Task again, as a run's folder keeps them."""
        return {**self.options.to_json(), "num_steps": num_steps}

    def goal(self) -> dict[str, Any]:
        """Returns what a run's folder says of the application next to its kind."""
        return {}

    @classmethod
    def from_run(cls, folder: RunFolder) -> Self:
        """Reads again what a run was made from.

        Raises:
            CheckpointError: the folder does not hold its options.
            UsageError: the data is no longer there.
        """
        options = cls.options_of(folder)
        check_data_is_there(options.path, cls.data_name)
        return cls.read(options, folder.path if cls.needs_scratch else None)

    @staticmethod
    def splits_of(folder: RunFolder) -> SplitRecord | None:
        """Returns which example is in which split of a run; None of a run that was begun before
        this was kept, or that keeps its data itself.

        Raises:
            CheckpointError: the record is damaged.
        """
        if not (folder.path / SPLITS_NAME).is_file():
            return None
        return SplitRecord.from_json(folder.read_json(SPLITS_NAME))

    @classmethod
    def options_of(cls, folder: RunFolder) -> Any:
        """The options with which a run was made.

        Raises:
            CheckpointError: ``run.json`` does not hold them.
            UsageError: they name code that the person has neither named nor trusts.
        """
        try:
            options = cls.options_type.from_json(folder.read_json("run.json")["source"]["dials"])
        except (KeyError, TypeError, UsageError) as error:
            raise CheckpointError(
                f"run.json of a run of the {cls.kind} application must hold its options",
                got=f"{folder.path}: {error}",
            ) from error
        for reference in options.code_named():
            check_trusted(reference, folder.path)
        return options

    def task_of_run(self) -> Task:
        """The Task of the run whose resolved options these are."""
        assert self.options.num_steps is not None  # resolved before step 0
        return self.task(self.options.num_steps)

    @staticmethod
    def summary(run: Run) -> list[str]:
        """The figures of a finished run in words, the most important first."""
        return [
            "  ".join(
                f"{name.replace('_', ' ')} {_short(value)}" for name, value in run.metrics.items()
            )
        ]

    @classmethod
    def next_commands(cls, path: Path) -> list[str]:
        """Returns the commands that a person can give next for a finished run."""
        return [f"volano eval {path}"]


class TrainedModel:
    """The model that a run has trained, on a device and in evaluation mode.

    A subclass has what can be done with it: :meth:`evaluate`, and ``predict``, ``generate`` or
    ``export``.

    Attributes:
        path: the run's folder.
        module: the ``nn.Module``.
        device: the device on which the model is.
        classes: the class names, in the order of the logits; empty if it knows none.
    """

    generate_options: ClassVar[type[DeclaredOptions] | None] = None
    unreadable_in_words: ClassVar[str] = "left out"  # of what an evaluation could not read
    classes: tuple[str, ...] = ()

    def __init__(self, folder: RunFolder, module: nn.Module, device: str | None = None) -> None:
        self.folder, self.path, self.device = folder, folder.path, Device(device)
        self.module = module.to(self.device.torch_device).eval()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.path)!r}, {type(self.module).__name__} on "
            f"{self.device.name})"
        )

    def evaluate(self, path: str | Path | None = None) -> dict[str, Any]:
        """Computes the figures of the run's own test set, or of the data at ``path``, with
        ``notices`` and ``unreadable`` if there are any."""
        raise UsageError(
            "This run's application has no test", got=f"evaluate({str(path)!r}) of {self.path}"
        )

    def describe_evaluation(self, result: Mapping[str, Any]) -> list[str | Table]:
        """Puts what :meth:`evaluate` returned into words and tables for a person."""
        figures = {name: value for name, value in result.items() if isinstance(value, int | float)}
        return [f"{name.replace('_', ' ')} {_short(value)}" for name, value in figures.items()]


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
