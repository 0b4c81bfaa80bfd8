"""The image application's verbs that train: train and resume. What is done with a run stands in image_results.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from volano.apps.classification import classification_scores
from volano.apps.image.application import ImageApplication, ImageOptions, read_application
from volano.apps.image.model_spec import check_classifier
from volano.apps.image.pictures import write_pictures
from volano.apps.image.recipe import DEFAULT_EPOCHS, MAX_EPOCHS, choose_size
from volano.apps.image.scores import predict_labelled, predict_logits
from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.errors import CheckpointError, UsageError
from volano.plan import Plan
from volano.planner import share_of_rank
from volano.running.checks import check_data_is_there, check_minutes
from volano.running.end_run import end_run, with_notices
from volano.running.plan_run import ChosenPlan, PlanOptions, choose_plan
from volano.running.processes import Processes, check_processes, execute
from volano.running.references import load_reference
from volano.running.train import check_unfinished, go_on
from volano.task import Task
from volano.training import (
    Observer,
    Run,
    RunFolder,
    Safety,
    check_plan,
    make_progress,
    measure_step_time,
    save_tensors,
    settings_of,
)

_NUM_SAMPLES = 64
DEFAULT_MINUTES = 3.0
# Of the minutes asked for, kept back: for writing, the pictures and the report (0.8 s of processor time), the
# interpreter's end, and because shared machines were seen to run 1.4 times slower for minutes than in the few seconds
# that are timed here (docs/log.md).
_RESERVE_SHARE, _RESERVE_SECONDS = 0.15, 3.0


@dataclass(frozen=True, kw_only=True)
class ImageRun:
    """A run of the image application. ``metrics`` and ``seconds`` include the final test."""

    run: Run
    metrics: dict[str, Any]
    seconds: dict[str, float]
    is_held_out: bool


def train_image(
    path: str | Path | None = None,
    *,
    minutes: float | None = None,
    epochs: float | None = None,
    size: str | None = None,
    model: str | None = None,
    image_size: int | None = None,
    image_cache: str | Path | None = None,
    batch_size: int | None = None,
    flip: str = "auto",
    seed: int = 0,
    device: str | None = None,
    out: str | Path | None = None,
    pins: Mapping[str, Any] | None = None,
    forbid: Mapping[str, Any] | None = None,
    budget: int | None = None,
    plan: Plan | str | Path | None = None,
    safety: Safety | None = None,
    processes: Processes | None = None,
    observer: Observer | None = None,
) -> ImageRun:
    """Trains a classifier of images, and tests it.

    Args:
        path: see ``read_image_sets``; None is the embedded sample.
        minutes: for the whole call, at most; turned into steps once, before the first. Without minutes and epochs
            it is 3 minutes and at most 30 epochs.
        epochs: passes over the training images, instead of minutes.
        size, model, image_size, image_cache, batch_size, flip, seed: see ``ImageOptions``.
        device, out, pins, forbid, budget, plan, safety, processes, observer: see ``volano.train``.

    Raises:
        VolanoError: as its subclasses say.
    """
    started = time.perf_counter()
    check_minutes(minutes, epochs)
    options = _options(
        path, epochs=epochs, size=size, model=model, image_size=image_size, image_cache=image_cache,
        batch_size=batch_size, flip=flip, seed=seed,
    )  # fmt: skip
    planning = PlanOptions(device=device, pins=pins or {}, forbid=forbid or {}, budget=budget, plan=plan)
    observer = observer or make_progress()
    folder = RunFolder.reserve(out, "image")
    application = read_application(options, own_model_of(model))
    check_classifier(application.spec, application.own_model)
    seconds = {"data": time.perf_counter() - started}
    mark = time.perf_counter()
    world_size = (processes or Processes()).world_size
    if epochs is None:
        application, chosen, num_steps, reasons = _fit_into(application, planning, minutes, started, world_size)
    else:
        num_steps = application.steps_in(epochs)
        chosen, reasons = choose_plan(application.task(num_steps), planning, world_size=world_size), ()
    task, plan = application.task(num_steps), chosen.plan
    seconds["plan"] = time.perf_counter() - mark
    resolved = {**application.options.to_json(), "num_steps": num_steps, "size": application.spec.size}
    check_plan(task, plan)
    check_processes(task, plan, processes)
    folder.make()
    chosen.write(folder)
    folder.write_json("image.json", application.spec.to_json())
    _write_faults(folder, application)
    source = {"kind": "image", "dials": resolved, "minutes": minutes, "origin": application.origin}
    run = execute(
        task,
        plan,
        folder,
        observer=observer,
        source=source,
        notices=(*application.notices, *chosen.reasons, *reasons),
        safety=safety,
        processes=processes,
        may_split=chosen.may_split,
    )
    return _finish(run, application, task, seconds, started, observer)


def resume_image(path: str | Path, *, observer: Observer | None = None, processes: Processes | None = None) -> ImageRun:
    """Goes on with a run of the image application, and tests it.

    Raises:
        UsageError: it is finished, or its images are no longer there.
        CheckpointError: no whole checkpoint, or the images have changed.
    """
    started = time.perf_counter()
    folder = RunFolder.open(path)
    if "test_accuracy" in (folder.read_json("run.json").get("metrics") or {}):
        check_unfinished(folder)  # a run that was interrupted in its final test has that left to do
    options = options_of(folder)
    application = read_application(options, own_model_of(options.model))
    seconds = {"data": time.perf_counter() - started}
    assert options.num_steps is not None  # resolved before step 0
    observer = observer or make_progress()
    task = application.task(options.num_steps)
    run = go_on(task, folder, observer=observer, processes=processes)
    return _finish(run, application, task, seconds, started, observer)


@contextlib.contextmanager
def task_to_plan(
    path: str | Path | None, planning: PlanOptions, *, minutes: float | None = None, **options: Any
) -> Iterator[Task]:
    """The task that :func:`train_image` would train with these options, to be planned and not trained."""
    started = time.perf_counter()
    check_minutes(minutes, options.get("epochs"))
    given = _options(path, **options)
    application = read_application(given, own_model_of(given.model))
    check_classifier(application.spec, application.own_model)
    if given.epochs is not None:
        yield application.task(application.steps_in(given.epochs))
        return
    quick = planning.quick()
    application, _, num_steps, _ = _fit_into(application, quick, minutes, started, 1)
    yield application.task(num_steps)


def _options(
    path: str | Path | None, *, image_cache: str | Path | None = None, flip: str = "auto", seed: int = 0, **options: Any
) -> ImageOptions:
    return ImageOptions(
        path=None if path is None else str(Path(path).absolute()),
        image_cache=None if image_cache is None else str(Path(image_cache).absolute()),
        flip=flip,
        seed=seed,
        **options,
    )


def task_of(folder: RunFolder) -> Task:
    """The task of a run of the image application, made again from its images and options."""
    options = options_of(folder)
    assert options.num_steps is not None  # resolved before step 0
    return read_application(options, own_model_of(options.model)).task(options.num_steps)


def _finish(
    run: Run, application: ImageApplication, task: Task, seconds: dict[str, float], started: float, observer: Observer
) -> ImageRun:
    mark = time.perf_counter()
    folder = RunFolder(run.path)
    metrics: dict[str, Any] = dict(run.metrics)
    test, spec = application.test, application.spec
    pixels, samples = test.first(_NUM_SAMPLES)
    save_tensors(
        {"images": pixels.contiguous(), "labels": samples.labels.contiguous()},
        run.path / "samples.safetensors",
    )
    if run.status == "finished":
        plan_device = Device(run.plan.device)
        with settings_of(run.plan, plan_device):
            logits, labels, faults = predict_labelled(
                run.model, test, plan_device, precision=run.plan.precision,
                flip=spec.flip, translate=spec.translate,
            )  # fmt: skip
        scores = classification_scores(logits, labels, spec.classes)
        metrics["test_accuracy"] = scores["accuracy"]
        metrics["baseline_accuracy"] = scores["baseline_accuracy"]
        metrics["num_test"] = scores["num_examples"]
        for fault in faults[len(test.faults) :]:  # of files that nobody had read before
            folder.append("quarantine.jsonl", {"set": "test", **asdict(fault)})
        pictures = write_pictures(folder, application, task, logits, labels, scores, faults, plan_device)
        run = with_notices(run, pictures, observer)
    run, phases = end_run(
        run,
        observer,
        metrics=metrics,
        seconds=seconds,
        started=started,
        tested=mark,
        is_held_out=application.is_held_out,
    )
    return ImageRun(run=run, metrics=metrics, seconds=phases, is_held_out=application.is_held_out)


def _fit_into(
    application: ImageApplication, planning: PlanOptions, minutes: float | None, started: float, world_size: int
) -> tuple[ImageApplication, ChosenPlan, int, tuple[str, ...]]:
    """The size of network, the plan and the number of steps that suit the time, from steps and predictions timed here,
    and the reason for the number."""
    budget = 60 * (DEFAULT_MINUTES if minutes is None else minutes)
    most_epochs = DEFAULT_EPOCHS if minutes is None else MAX_EPOCHS
    reserve = _RESERVE_SECONDS + _RESERVE_SHARE * budget

    def steps_left(application: ImageApplication, step: float, startup: float, forward: float) -> int:
        # Evaluations, and the final test with up to six views of the images that the network is unsure about.
        num_predictions = 5 * len(application.valid) + 3 * len(application.test)
        left = budget - (time.perf_counter() - started) - startup - forward * num_predictions - reserve
        return max(1, int(left / step))  # one step is the least that is a training

    first = choose_plan(
        application.task(application.steps_in(1.0)), planning, world_size=world_size, seconds=budget, is_raced=False
    )
    if application.options.size is None and application.own_model is None:
        size = choose_size(
            epochs_of_thin=steps_left(application, *_measure(application, first.plan, budget, world_size))
            / application.steps_in(1.0),
            num_train=len(application.train),
            resolution=application.spec.image_size,
            channels=application.spec.channels,
            num_classes=len(application.spec.classes),
        )
        application = application.with_size(size)
    most = application.steps_in(most_epochs)
    left = budget - (time.perf_counter() - started)
    chosen = choose_plan(
        application.task(application.steps_in(1.0)), planning, world_size=world_size, seconds=max(1.0, left - reserve)
    )
    step, startup, forward = _measure(application, chosen.plan, budget, world_size)
    num_steps = min(steps_left(application, step, startup, forward), most)
    limit = f"at most {most_epochs:g} epochs" if num_steps == most else f"{budget / 60:g} min"
    name = application.spec.size or application.spec.model_reference
    reason = (
        f"{num_steps:,} steps ({num_steps / application.steps_in(1.0):.1f} epochs) of the {name} network: "
        f"{step * 1e3:.0f} ms a step, {limit}" + (" are too short for more" if num_steps == 1 else "")
    )
    return application, chosen, num_steps, (reason,)


def _measure(application: ImageApplication, plan: Plan, budget: float, world_size: int) -> tuple[float, float, float]:
    """Seconds of a step, of what is paid once, and of the prediction of one image."""
    task, device = application.task(application.steps_in(1.0)), Device(plan.device)
    time_of = measure_step_time(*share_of_rank(task, plan, world_size), seconds=min(5.0, 0.02 * budget))
    with random_state_kept(device), settings_of(plan, device):
        model = task.model().to(device.torch_device)
        some, _ = application.test.first(512)
        predict_logits(model, some[:64], device, precision=plan.precision, flip=False, translate=0)
        mark = time.perf_counter()
        predict_logits(model, some, device, precision=plan.precision, flip=False, translate=0)
        return time_of.step, time_of.startup, (time.perf_counter() - mark) / len(some)


def options_of(folder: RunFolder) -> ImageOptions:
    """The options with which a run was made.

    Raises:
        CheckpointError: ``run.json`` does not hold them.
        UsageError: the images are no longer there.
    """
    try:
        options = ImageOptions(**folder.read_json("run.json")["source"]["dials"])
    except (KeyError, TypeError) as error:
        raise CheckpointError("run.json of an image run holds its dials", got=f"{folder.path}: {error}") from error
    check_data_is_there(options.path, "images")
    return options


def own_model_of(reference: str | None) -> Callable[..., Any] | None:
    """What ``--model`` names, or None.

    Raises:
        UsageError: it cannot be imported or called.
    """
    if reference is None:
        return None
    function = load_reference(reference)
    if not callable(function):
        raise UsageError("--model names a function that makes a model", got=f"{reference}: {type(function).__name__}")
    return function


def _write_faults(folder: RunFolder, application: ImageApplication) -> None:
    for fault in application.faults:
        folder.append("quarantine.jsonl", {"set": "images", **asdict(fault)})
