"""The contract of an application: what one gives, so that the verbs (train, resume, explain,
explore, ...) do the rest.

A fourth kind of application is a subclass of :class:`Application` in a folder of its own, with its
options and, if it can be used afterwards, a subclass of :class:`TrainedModel`; ``examples/table``
shows one.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from volano.apps.options import DeclaredOptions, Options
from volano.bounded_json import parse_json
from volano.data import Fault
from volano.data.sources import SPLITS_NAME, SplitRecord
from volano.device import Device
from volano.errors import CheckpointError, RunError, UsageError
from volano.planner import PlanResult
from volano.pretrained.frozen_features import FineTuningStart
from volano.record.format import brief_value, count_text
from volano.report.verdict import Score
from volano.running.checks import check_data_is_there
from volano.running.fit_time import FittedSize, TrainingSize, fit_time
from volano.running.time_limit import TimeLimit
from volano.running.trust import check_trusted
from volano.task import Task
from volano.training import LengthRule, Run, RunFolder


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """An application with all that its run's length decides: the plan, the number of steps, and the
    reasons; and the rule by which the run revises its number of steps, if it may."""

    application: Application
    chosen: PlanResult
    num_steps: int
    reasons: tuple[str, ...] = ()
    length: LengthRule | None = None

    @classmethod
    def of(cls, application: Application, found: FittedSize, *reasons: str) -> Self:
        """Returns an application with what its time came to; ``reasons``: more of them."""
        return cls(
            application=application,
            chosen=found.chosen,
            num_steps=found.schedule.num_steps,
            reasons=(*reasons, *found.reasons),
            length=found.length,
        )


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
        sample_minutes: the same on the embedded sample.
        most_epochs: passes over the data after which more are of no use; None if that is not known.
        final_metric: a figure that only the final test gives.
        study_metric: by which trials are compared, and ``"minimize"`` or ``"maximize"``.
        data_name: what its data is, in words ("images"); so the list of unreadable files names it
            too.
        generate_device: where new things are made if no device is named; None is the accelerator.
        needs_scratch: whether reading writes files, which :meth:`write` moves into the run's
            folder.
        model_type: what its runs have trained, a subclass of :class:`TrainedModel`.
        next_words: commands that a person can give next for a finished run, called RUN.

    Attributes:
        options: the options as given, with what reading has resolved.
        origin: the source of the data, in words.
        faults: the examples that could not be read.
        notices: texts about the data that a person should read.
        is_held_out: whether Volano split the test data off; may be left out.
        start: the head of a pretrained network, solved before the first step; None if there is no
            such network, or it is solved when it is needed.
    """

    kind: ClassVar[str]
    options_type: ClassVar[type[Options]]
    default_minutes: ClassVar[float] = 3.0
    sample_minutes: ClassVar[float] = 3.0
    most_epochs: ClassVar[float | None] = None
    final_metric: ClassVar[str]
    study_metric: ClassVar[tuple[str, str]] = ("loss", "minimize")
    data_name: ClassVar[str] = "data"
    generate_device: ClassVar[str | None] = None
    needs_scratch: ClassVar[bool] = False
    model_type: ClassVar[type[TrainedModel] | None] = None
    next_words: ClassVar[tuple[str, ...]] = ("eval RUN",)

    options: Any
    origin: Any
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]
    start: FineTuningStart | None = None

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

    @classmethod
    def goal_of_study(cls, options: Mapping[str, Any]) -> tuple[str, str]:
        """Returns :attr:`study_metric` for options, by name."""
        del options
        return cls.study_metric

    @classmethod
    def minutes_of(cls, options: Any) -> float:
        """Returns the length of a run: what is asked for, or what suits its data."""
        if options.minutes is not None:
            return options.minutes
        return cls.sample_minutes if options.path is None else cls.default_minutes

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
        if cls.model_type is None:
            raise UsageError(
                "For its runs to be used, an application must have `model_type` or `load`",
                got=f"{cls.__name__} of {folder.path}",
            )
        return cls.model_type.open(folder, device)

    def fit(self, limit: TimeLimit) -> Fitted:
        """Finds the plan and the number of steps that suit the time, once, before the first
        step."""
        task = self.task(self.steps_in(1.0))
        most = {} if self.most_epochs is None else {"most_steps": self.steps_in(self.most_epochs)}
        size = TrainingSize(name=f"{self.kind} network", task=lambda: task, **most)
        num_evaluations = -(-task.num_steps // task.evaluation_interval)
        found = fit_time(limit, [size], num_evaluations=num_evaluations)
        steps = count_text(found.schedule.num_steps, "step")
        pace = found.pace(limit, f"at most {self.most_epochs or 0:g} epochs")
        return Fitted.of(self, found, f"{steps}: {pace}")

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

    def for_study(self) -> Self:
        """Returns the same for the trials of a study: its Tasks have a validation set by which they
        are compared, and what is open of its options is settled."""
        return self

    def solved_on(self, device: Device) -> Self:  # noqa: ARG002 - for those that need it
        """Returns the same with its :attr:`start`, solved on a device if it was not yet."""
        return self

    def with_options(self, **changes: Any) -> Self:
        """The same with other values of some options."""
        whole: Any = self  # a dataclass
        return dataclasses.replace(whole, options=dataclasses.replace(self.options, **changes))

    def evaluation_interval(self, num_steps: int, recipe: Any) -> str:
        """Returns the steps from one evaluation to the next, as a Task takes them: as many
        evaluations as the recipe wants, or fewer if the time has no more."""
        num = min(recipe.num_evaluations, self.options.num_evaluations or recipe.num_evaluations)
        return f"{max(1, -(-num_steps // num))}st"

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

    def task_for(self, num_steps: int) -> Task:
        """The Task of a run of so many steps, with the numbers of a study's trial if it trains one.

        Raises:
            CheckpointError: they are none of the recipe's.
        """
        if self.options.tried is None:
            return self.task(num_steps)
        try:
            numbers = parse_json(self.options.tried)
            return self.task(num_steps, dataclasses.replace(self.recipe_of(num_steps), **numbers))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                "The numbers of a trial must be those of the application's recipe",
                got=f"{self.options.tried}: {error}",
            ) from error

    def task_of_run(self) -> Task:
        """The Task of the run whose resolved options these are."""
        assert self.options.num_steps is not None  # resolved before step 0
        return self.kept_as_asked(self.task_for(self.options.num_steps))

    def kept_as_asked(self, task: Task) -> Task:
        """The Task that keeps the weights that the options ask for.

        Raises:
            TaskError: it has no validation set to know the best by.
        """
        options = self.options
        if options.keep == "last":
            return task
        return dataclasses.replace(task, keep=options.keep, patience=options.patience)

    def about_keeping(self) -> tuple[str, ...]:
        """Returns what must be known of figures if the best weights are kept."""
        return (
            "keep=best: where the examples that are looked at during the run are those of the "
            "final test, its figures are a little better than the truth",
        )

    @staticmethod
    def summary(run: Run) -> list[str]:
        """The figures of a finished run in words, the most important first."""
        return [
            "  ".join(
                f"{name.replace('_', ' ')} {brief_value(value)}"
                for name, value in run.metrics.items()
            )
        ]

    @classmethod
    def next_commands(cls, path: Path) -> list[str]:
        """Returns the commands that a person can give next for a finished run."""
        return [f"volano {words.replace('RUN', str(path))}" for words in cls.next_words]


class TrainedModel:
    """The model that a run has trained, on a device and in evaluation mode.

    A subclass has what can be done with it: :meth:`evaluate`, and ``predict``, ``generate`` or
    ``export``.

    Attributes:
        path: the run's folder.
        module: the ``nn.Module``.
        device: the device on which the model is.
        spec: its description, if it was given one.
        classes: the class names, in the order of the logits; empty if it knows none.
    """

    generate_options: ClassVar[type[DeclaredOptions] | None] = None
    unreadable_in_words: ClassVar[str] = "left out"  # of what an evaluation could not read
    classes: tuple[str, ...] = ()
    spec: Any = None

    def __init__(
        self, folder: RunFolder, module: nn.Module, device: str | None = None, *, spec: Any = None
    ) -> None:
        self.folder, self.path, self.device = folder, folder.path, Device(device)
        self.module = module.to(self.device.torch_device).eval()
        if spec is not None:
            self.spec, self.classes = spec, spec.classes

    @classmethod
    def open(cls, folder: RunFolder, device: str | None = None) -> Self:
        """Loads what a run has trained; for applications that name :attr:`model_type`."""
        raise NotImplementedError

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

    def _evaluated(
        self, name: str, origin: str, figures: Mapping[str, Any], faults: Sequence[Fault] = ()
    ) -> dict[str, Any]:
        """Writes an evaluation into the run's folder as ``eval-NAME.json``, and returns it."""
        result = {"run": str(self.path), "origin": origin, **figures}
        result["unreadable"] = [dataclasses.asdict(fault) for fault in faults]
        try:
            self.folder.write_json(f"eval-{name}.json", result)
        except RunError as error:  # of another person's run, say: the figures are told
            result["notices"] = [*result.get("notices", ()), f"not kept: {error}"]
        return result

    def describe_evaluation(self, result: Mapping[str, Any]) -> list[str | Table]:
        """Puts what :meth:`evaluate` returned into words and tables for a person."""
        figures = {name: value for name, value in result.items() if isinstance(value, int | float)}
        return [f"{name.replace('_', ' ')} {brief_value(value)}" for name, value in figures.items()]
