"""The studies without code: each application's search space, and the builds that make a trial's
task of it."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import json
import math
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from volano.apps.kinds import application_class, choose_application, is_application, options_for
from volano.apps.options import Setting
from volano.device import Device
from volano.errors import CheckpointError, UsageError
from volano.plan import Plan
from volano.pretrained.frozen_features import FineTuningStart
from volano.record.json_values import mapping
from volano.record.run_folder import RunFolder
from volano.running.checks import check_data_is_there
from volano.running.references import load_reference
from volano.running.trust import check_trusted, is_trusted, name_code, trust_folder
from volano.study.search_space import Range, SearchSpace
from volano.study.settings import StudySettings
from volano.study.study import Study
from volano.task import Task
from volano.training import measure_step_time

DEFAULT_MINUTES = 10.0
_DEFAULT_TRIALS, _DEFAULT_ETA = 64, 3
# Of the minutes, for start-up, evaluations and the report; and because packs gain nothing if
# convolutions decide.
_RESERVE_SHARE, _RESERVE_SECONDS = 0.3, 10.0
_TIMING_SECONDS = 3.0
_LEAST_SECONDS = 0.2
# At most so many passes in a trial: beyond them differences between configurations hardly change.
_MOST_EPOCHS = 20.0


class ApplicationBuild:
    """The ``build(trial) -> Task`` of an application: its recipe for a length, with the numbers of
    the trial in it.

    All trials have the weights, the order and the draws of one seed: they differ in what is tried.

    Args:
        kind: the kind of the application, as ``volano train`` takes it.
        options: the options of the application, resolved, by name.
        space: the numbers that are tried: fields of the application's recipe.
        num_steps: the number of steps of a whole trial.

    Attributes:
        metric, direction: the metric and direction by which its trials are compared.
    """

    def __init__(
        self, kind: str, options: Mapping[str, Any], space: SearchSpace, num_steps: int
    ) -> None:
        self.kind, self.options, self.space, self.num_steps = kind, dict(options), space, num_steps
        application_type = application_class(kind)
        self.metric, self.direction = application_type.goal_of_study(self.options)
        self.__name__ = f"{application_type.kind}-study"
        self._application: Any = None
        self._base: Task | None = None
        self._start: FineTuningStart | None = None  # goes to the workers: it is solved once

    def __call__(self, trial: Any) -> Task:
        """The task of a trial."""
        numbers = self.space.suggest(trial)
        self._application = self._application or self._read()
        base = self._base = self._base or self._application.task(self.num_steps)
        recipe = dataclasses.replace(self._application.recipe_of(self.num_steps), **numbers)
        task = self._application.task(self.num_steps, recipe)
        return dataclasses.replace(task, data=base.data, valid=base.valid, collate=base.collate)

    def source(self) -> dict[str, Any]:
        """The source from which :func:`build_of` makes it again."""
        return {
            "kind": self.kind, "dials": self.options, "space": self.space.to_json(),
            "num_steps": self.num_steps,
        }  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        # The data is read again by who gets it.
        return {**self.__dict__, "_application": None, "_base": None}

    def _read(self) -> Any:
        application_type, scratch = application_class(self.kind), None
        if application_type.needs_scratch:
            scratch = Path(tempfile.mkdtemp(prefix=f"volano-{application_type.kind}-"))
            # What is mapped stays readable.
            weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        options = application_type.options_type.from_json(self.options)
        found: Any = application_type.read(options, scratch).for_study()
        return found if self._start is None else dataclasses.replace(found, start=self._start)

    def resolved(
        self, seconds: float, num_trials: float, device: Device, space: SearchSpace | None
    ) -> ApplicationBuild:
        """The same with a length of which so many whole trials fit into the seconds, from steps
        timed here, and with the application's own space if none is given. A pretrained network's
        head is solved first, at the expense of the trials."""
        read, mark = self._read(), time.perf_counter()
        solved = read.solved_on(device)
        self._start = solved.start
        spent = 0.0 if solved is read else time.perf_counter() - mark
        seconds = max(_LEAST_SECONDS, (seconds - spent) / num_trials)
        application, step = solved.fit_trial(
            seconds, functools.partial(_step_seconds, device), device
        )
        self.num_steps = max(1, min(application.steps_in(_MOST_EPOCHS), int(seconds / step)))
        self.options = {**application.resolved(self.num_steps), "num_steps": None}
        self.metric, self.direction = application.goal_of_study(self.options)
        self._application = application
        recipe = application.recipe_of(self.num_steps)
        self.space = check_space_of_recipe(space or default_space(recipe), recipe)
        return self

    def lengthened(self, epochs: float) -> ApplicationBuild:
        """The same with whole trials of so many passes over the data."""
        self._application = self._application or self._read()
        return ApplicationBuild(
            self.kind, self.options, self.space, self._application.steps_in(epochs)
        )


def application_build(
    kind: str,
    path: str | Path | None = None,
    *,
    space: str | Path | SearchSpace | None = None,
    trials: int = _DEFAULT_TRIALS,
    minutes: float | None = None,
    eta: int = _DEFAULT_ETA,
    rungs: int | None = None,
    seed: int = 0,
    device: str | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> ApplicationBuild:
    """The build of an application's study, for :func:`volano.explore`.

    A whole trial is as long as the study affords: with successive halving the trials together cost
    ``trials * (share_1 + (share_2 - share_1) / eta + ...)`` whole ones, and that many fill the
    minutes at the pace of a plain training that is timed here. It is found once and stands in the
    study's folder.

    Args:
        kind: the kind of the application, as ``volano train`` takes it.
        path: the path of its data, as ``volano train`` takes it; None is the embedded sample.
        space: a Space or the file of one; None is the application's own.
        trials, eta, rungs: the settings of the study.
        minutes: the minutes for all of it; 10.
        seed: the seed of weights, order and draws.
        device: the device on which it will run.
        on_progress: the function that hears what is done before it is.
        options: more of the application's.

    Raises:
        UsageError: the path does not exist, the space names no setting of the application's recipe,
            or a setting of the study is invalid.
        DataError: what lies there cannot be trained on.
    """
    chosen = SearchSpace.load(space) if isinstance(space, str | Path) else space
    own = {name: value for name, value in options.items() if value is not None}
    asked = {"path": path, "seed": seed, **own}
    _, given = choose_application(kind, asked)
    kind = options_for(kind, asked)[0] if is_application(kind) else kind
    if given.epochs is not None:
        raise UsageError("A study must get `minutes` for the length of its trials", got="`epochs`")
    if given.keep == "best":
        raise UsageError(
            "The trials of a study must keep their last weights, by which they are compared",
            got="`keep` best", remedy="Train the best trial with it",
        )  # fmt: skip
    shares = StudySettings(trials=trials, minutes=minutes, eta=eta, rungs=rungs, seed=seed).shares
    whole = trials * sum(
        (share - before) / eta**rung
        for rung, (before, share) in enumerate(zip((0.0, *shares), shares, strict=False))
    )
    budget = 60 * (DEFAULT_MINUTES if minutes is None else minutes)
    seconds = (1.0 - _RESERVE_SHARE) * budget - _RESERVE_SECONDS
    if seconds < _LEAST_SECONDS * whole:
        least = (_LEAST_SECONDS * whole + _RESERVE_SECONDS) / (1.0 - _RESERVE_SHARE) / 60
        raise UsageError(
            f"The minutes of a study must leave each whole trial {_LEAST_SECONDS:g} s at least",
            got=f"{budget / 60:g} for {trials} trials",
            remedy=f"Give {math.ceil(10 * least) / 10:g} minutes, or fewer trials",
        )
    on_progress(
        f"reading {path or 'the embedded sample'}; then a step is timed, to find how long a trial "
        "can be"
    )
    unknown = SearchSpace(parameters={"?": (0,)})
    return ApplicationBuild(kind, given.to_json(), unknown, 1).resolved(
        seconds, whole, Device(device), chosen
    )


def build_of(source: Any, folder: Path | None = None) -> Callable[[Any], Task]:
    """The build function of a study, made again from the ``source`` in its ``study.json``.

    Args:
        folder: the study's folder; without it, what code it names must have been named.

    Raises:
        UsageError: it was a Python function of which nothing is known, or it names code that the
            person has neither named nor trusts.
        CheckpointError: what stands there is no such source.
    """
    try:
        return _build_of(mapping(source), folder)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            "study.json must say what its trials were made from",
            got=f"{type(error).__name__}: {error}",
            remedy="It is damaged, or was not written by Volano",
        ) from error


def _build_of(source: Mapping[str, Any], folder: Path | None) -> Callable[[Any], Task]:
    kind, where = source.get("kind", "python"), folder or Path("study.json")
    if kind == "reference":
        check_trusted(source.get("reference"), where, by="build")
        return load_reference(source["reference"])
    if kind != "python":
        if ":" in str(kind):
            check_trusted(kind, where, by="build")
        options = application_class(kind).options_type.from_json(source["dials"])
        for reference in options.code_named():
            check_trusted(reference, where, by="build")
        check_data_is_there(source["dials"].get("path"), "data")
        return ApplicationBuild(
            kind, source["dials"], SearchSpace.from_json(source["space"]), source["num_steps"]
        )
    raise UsageError(
        "A study's trials must be made from a build function that can be found again",
        got="a study that was started from Python with a function",
        remedy='Give `build`, the function or "module:build"',
    )


def task_of(folder: RunFolder) -> Task:
    """Returns the task of a run that trains a trial, made again from the study."""
    source = folder.read_json("run.json")["source"]
    if is_trusted(folder.path):
        trust_folder(source["study"])
    build = source.get("build")  # named by whoever trained the trial
    if build is not None:
        check_trusted(build, folder.path)
    return task_of_trial(
        source["study"], source["trial"], build=build, epochs=source.get("epochs")
    )[0]


def task_of_trial(
    study: str | Path,
    trial: str | int = "best",
    *,
    build: Callable[[Any], Task] | str | None = None,
    epochs: float | None = None,
) -> tuple[Task, int]:
    """A trial's task at its whole length, and the trial's number.

    Args:
        study: the folder.
        trial: ``"best"``, or its number.
        build: the function with which the study was made, if its folder does not name it.
        epochs: another length, for a study of an application: its trials are as short as the
            study's minutes made them.

    Raises:
        UsageError: no such trial, one that has failed, or the build function is missing.
    """
    import optuna

    name_code(build)
    opened = Study.open(study)
    number, params = _number_and_params(opened, trial)
    made = load_reference(build) if isinstance(build, str) else build
    made = made or build_of(opened.facts.get("source"), opened.folder)
    if epochs is not None:
        if not isinstance(made, ApplicationBuild):
            raise UsageError(
                "`epochs` must come with a study of an application",
                got="a build function of your own",
            )
        made = made.lengthened(epochs)
    try:
        return made(optuna.trial.FixedTrial(dict(params), number=number)), number
    except ValueError as error:
        # What Optuna says of a parameter that the trial has not.
        if "is not found" not in str(error):
            raise
        raise UsageError(
            "build must make the tasks that it made for the study", got=f"trial {number}: {error}"
        ) from error


def application_of_trial(
    study: str | Path, trial: str | int = "best", *, epochs: float | None = None
) -> tuple[str, Any, dict[str, Any]] | None:
    """Returns what trains a trial as a run of its application: the application's kind, its options,
    and what the run's folder says of where it comes from; None if the study is of a build function.

    Args:
        study: the folder.
        trial: ``"best"``, or its number.
        epochs: another length than the trial had.

    Raises:
        UsageError: no such trial, one that has failed, or code that the folder names is not
            trusted.
    """
    import optuna

    opened = Study.open(study)
    source = mapping(opened.facts.get("source"))
    if source.get("kind", "python") in ("python", "reference"):
        return None
    number, params = _number_and_params(opened, trial)
    build = build_of(source, opened.folder)
    assert isinstance(build, ApplicationBuild)
    numbers = build.space.suggest(optuna.trial.FixedTrial(dict(params), number=number))
    length = {"num_steps": build.num_steps} if epochs is None else {"epochs": epochs}
    dials = {**build.options, "num_steps": None, **length, "tried": json.dumps(numbers)}
    more = {"study": str(Path(study).absolute()), "trial": number}
    return build.kind, application_class(build.kind).options_type.from_json(dials), more


def _number_and_params(opened: Study, trial: str | int) -> tuple[int, Mapping[str, Any]]:
    if trial == "best":
        return opened.best.number, opened.best.params
    with contextlib.suppress(ValueError):
        trial = int(trial)
    if not isinstance(trial, int):
        raise UsageError("A trial must be 'best' or a number", got=repr(trial))
    found = opened.trial(trial)
    if found.state == "failed":
        raise UsageError(
            "A trial to train again must not have failed",
            got=f"trial {trial}, which failed: {found.reason}",
        )
    return trial, found.params


def default_space(recipe: Any) -> SearchSpace:
    """Returns an application's own space: what its recipe's fields say of themselves, around the
    recipe's numbers. One that could only be itself, such as a frozen layer's rate, is left out."""
    parameters: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):
        setting, value = Setting.of(field), getattr(recipe, field.name)
        if setting.low is not None and setting.high is not None:
            low, high = setting.low(value), setting.high(value)
            if low < high:
                parameters[field.name] = Range(low=low, high=high, log=setting.is_logarithmic)
    return SearchSpace(parameters=parameters)


def check_space_of_recipe(space: SearchSpace, recipe: Any) -> SearchSpace:
    """A space for a recipe; whole bounds of a setting that is no whole number are those of real
    ones.

    Raises:
        UsageError: it names what is no setting of the recipe.
    """
    names = [field.name for field in dataclasses.fields(recipe) if Setting.of(field).is_tried]
    for name in space.parameters:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
            raise UsageError(
                "A search space must name settings of the recipe",
                got=name,
                remedy=f"Say {', '.join(near)}",
            )
        values = space.parameters[name]
        lowest = values.low if isinstance(values, Range) else min(values)
        if name.endswith("lr") and lowest <= 0:
            raise UsageError("A learning rate must be above 0", got=f"{lowest} of {name}")
    return space.with_real([name for name in names if isinstance(getattr(recipe, name), float)])


def _step_seconds(device: Device, task: Task) -> float:
    plan = Plan.baseline(device.name).pin(optimizer="fused")
    return measure_step_time(task, plan, seconds=_TIMING_SECONDS).step
