"""The image application's verbs: train, resume, eval, predict, export."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from volano.api.plans import choose_plan
from volano.api.references import load_reference
from volano.api.tasks import check_unfinished, go_on
from volano.apps.image.export import export_classifier
from volano.apps.image.problem import ImageDials, ImageProblem, read_problem
from volano.apps.image.recipe import DEFAULT_EPOCHS, MAX_EPOCHS, choose_size
from volano.apps.image.scores import classification_scores, predict_logits
from volano.apps.image.spec import ClassifierSpec, check_classifier, make_classifier
from volano.data.sources import ImageFile, LabelledImages, decode_all, is_image, listed, read_image_sets
from volano.device import Device
from volano.errors import CheckpointError, DataError, UsageError
from volano.plan import Plan
from volano.report import draw_confusion
from volano.training import (
    Observer,
    Run,
    RunFolder,
    check_plan,
    load_weights,
    make_progress,
    measure_step_time,
    random_state_kept,
    run_task,
    save_tensors,
    settings_of,
)

_NUM_SAMPLES = 64
DEFAULT_MINUTES = 3.0
# Of the minutes asked for, kept back: for writing, for the interpreter's end, and because shared machines were seen to
# run 1.4 times slower for minutes than in the few seconds that are timed here (docs/log.md).
_RESERVE_SHARE, _RESERVE_SECONDS = 0.15, 2.0


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
    batch_size: int | None = None,
    flip: str = "auto",
    seed: int = 0,
    device: str | None = None,
    out: str | Path | None = None,
    pins: dict[str, Any] | None = None,
    observer: Observer | None = None,
) -> ImageRun:
    """Trains a classifier of images, and tests it.

    Args:
        path: see ``read_image_sets``; None is the embedded sample.
        minutes: for the whole call, at most; turned into steps once, before the first. Without minutes and epochs
            it is 3 minutes and at most 30 epochs.
        epochs: passes over the training images, instead of minutes.
        size, model, image_size, batch_size, flip, seed: see ``ImageDials``.
        device, out, pins, observer: see ``volano.train``.

    Raises:
        VolanoError: as its subclasses say.
    """
    started = time.perf_counter()
    if minutes is not None and epochs is not None:
        raise UsageError("A run is as long as --minutes or --epochs say", got="both")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError("--minutes is a number above 0", got=minutes)
    dials = ImageDials(
        path=None if path is None else str(Path(path).absolute()),
        epochs=epochs,
        size=size,
        model=model,
        image_size=image_size,
        batch_size=batch_size,
        flip=flip,
        seed=seed,
    )
    observer = observer or make_progress()
    folder = RunFolder.reserve(out, "image")
    problem = read_problem(dials, _own_model(model))
    check_classifier(problem.spec, problem.own_model)
    seconds = {"data": time.perf_counter() - started}
    mark = time.perf_counter()
    # Volano's networks come with an optimizer that has one implementation; a model of one's own has torch's.
    own_pins = {"optimizer": "as_given", "memory_format": "channels_last"} if model is None else {}
    plan, reasons = choose_plan(problem.task(problem.steps_in(1.0)), device=device, pins={**own_pins, **(pins or {})})
    if epochs is None:
        budget = 60 * (DEFAULT_MINUTES if minutes is None else minutes)
        most = DEFAULT_EPOCHS if minutes is None else MAX_EPOCHS
        left = budget - (mark - started)
        problem, num_steps, reason = _fit_into(problem, plan, left, budget=budget, most_epochs=most)
        reasons.append(reason)
    else:
        num_steps = problem.steps_in(epochs)
    task = problem.task(num_steps)
    seconds["plan"] = time.perf_counter() - mark
    resolved = {**problem.dials.to_json(), "num_steps": num_steps, "size": problem.spec.size}
    check_plan(task, plan)
    folder.make()
    folder.write_json("image.json", problem.spec.to_json())
    _write_faults(folder, problem)
    source = {"kind": "image", "dials": resolved, "minutes": minutes, "origin": problem.origin}
    run = run_task(task, plan, folder, observer=observer, source=source, notices=(*problem.notices, *reasons))
    return _finish(run, problem, seconds, started)


def resume_image(path: str | Path, *, observer: Observer | None = None) -> ImageRun:
    """Goes on with a run of the image application, and tests it.

    Raises:
        UsageError: it is finished, or its images are no longer there.
        CheckpointError: no whole checkpoint, or the images have changed.
    """
    started = time.perf_counter()
    folder = RunFolder.open(path)
    if "test_accuracy" in (folder.read_json("run.json").get("metrics") or {}):
        check_unfinished(folder)  # a run that was interrupted in its final test has that left to do
    dials = _dials_of(folder)
    problem = read_problem(dials, _own_model(dials.model))
    seconds = {"data": time.perf_counter() - started}
    assert dials.num_steps is not None  # resolved before step 0
    run = go_on(problem.task(dials.num_steps), folder, observer)
    return _finish(run, problem, seconds, started)


def is_image_run(path: str | Path) -> bool:
    """Whether a folder is a run of the image application."""
    return (RunFolder.open(path).read_json("run.json").get("source") or {}).get("kind") == "image"


def eval_image(path: str | Path, images: str | Path | None = None, *, device: str | None = None) -> dict[str, Any]:
    """Scores of a run's classifier.

    Args:
        path: the run's folder.
        images: any source of labelled images with the run's classes (its test split where it names one); None is the
            run's own test set.
        device: as torch writes it.

    Returns:
        See ``classification_scores``, with ``picture``, the path of the confusion matrix. The same stands in the run's
        folder as ``eval-NAME.json`` and ``eval-NAME.png``.
    """
    folder, spec, model = _open(path)
    if images is None:
        dials = _dials_of(folder)
        problem = read_problem(dials, _own_model(dials.model))
        test, name, origin = problem.test, "test", f"{problem.origin}, test"
    else:
        sets = read_image_sets(Path(images), pixel_format=spec.pixel_format, least_classes=1)
        test, name, origin = _in_terms_of(spec, sets.test or sets.valid or sets.train), Path(images).stem, sets.origin
    logits = _predict(model, spec, test.images, device)
    scores = classification_scores(logits, test.labels, spec.classes)
    picture = folder.path / f"eval-{name}.png"
    title = f"{origin}: accuracy {scores['accuracy']:.2%}"
    draw_confusion(scores["confusion"], spec.classes, title, picture)
    result = {"run": str(folder.path), "origin": origin, **scores, "picture": str(picture)}
    result["unreadable"] = [asdict(fault) for fault in test.faults]
    folder.write_json(f"eval-{name}.json", result)
    return result


def predict_image(
    path: str | Path,
    files: Sequence[str | Path],
    *,
    top_k: int = 3,
    csv_path: str | Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """The most likely classes of image files, and of those in folders.

    Returns:
        ``predictions``: path and ``top`` (class and probability, the likeliest first) of each image; ``unreadable``:
        path and reason of the others; ``top_k``.

    Raises:
        UsageError: a file does not exist, or is not named like an image.
        DataError: none could be read.
    """
    _, spec, model = _open(path)
    if top_k < 1:
        raise UsageError("--top-k is a whole number above 0", got=top_k)
    top_k = min(top_k, len(spec.classes))
    found = [ImageFile(path=file, label=None) for file in _image_files(files)]
    images = decode_all(found, spec.classes, spec.pixel_format, root=Path(), max_share=1.0)
    if not len(images):
        raise DataError("One of the images can be read", got=f"none; the first: {images.faults[0].reason}")
    top = _predict(model, spec, images.images, device).softmax(1).topk(top_k)
    predictions = [
        {
            "path": name,
            "top": [
                {"class": spec.classes[number], "probability": round(probability, 6)}
                for number, probability in zip(numbers, probabilities, strict=True)
            ],
        }
        for name, numbers, probabilities in zip(images.names, top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    if csv_path is not None:
        _write_csv(Path(csv_path), predictions, top_k)
    unreadable = [{"path": fault.path, "reason": fault.reason} for fault in images.faults]
    return {"run": str(path), "top_k": top_k, "predictions": predictions, "unreadable": unreadable}


def export_image(path: str | Path, to: str, out: str | Path | None = None) -> dict[str, Any]:
    """Writes a run's classifier as safetensors, pt2 or onnx, loads it back and compares predictions.

    The exported program takes bytes uint8 [N, channels, size, size] and gives logits [N, classes].
    """
    folder, spec, model = _open(path)
    own_model = _own_model(spec.model_reference)
    suffix = {"safetensors": "exported.safetensors"}.get(to, to)
    target = Path(out) if out is not None else folder.path / f"model.{suffix}"
    if not target.parent.is_dir() or target.is_dir():
        raise UsageError("--out names a file in a folder that exists", got=str(target))
    try:
        samples = load_file(folder.path / "samples.safetensors")["images"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            "A run of the image application holds samples.safetensors to compare predictions on", got=f"{error}"
        ) from error
    result = export_classifier(model, make_classifier(spec, own_model), samples, to, target)
    return {"run": str(folder.path), "classes": list(spec.classes), "input": list(samples.shape[1:]), **result}


def _finish(run: Run, problem: ImageProblem, seconds: dict[str, float], started: float) -> ImageRun:
    mark = time.perf_counter()
    metrics: dict[str, Any] = dict(run.metrics)
    test, spec = problem.test, problem.spec
    rows = slice(_NUM_SAMPLES)
    save_tensors(
        {"images": test.images[rows].contiguous(), "labels": test.labels[rows].contiguous()},
        run.path / "samples.safetensors",
    )
    if run.status == "finished":
        plan_device = Device(run.plan.device)
        with settings_of(run.plan, plan_device):
            logits = predict_logits(
                run.model, test.images, plan_device, precision=run.plan.precision,
                flip=spec.flip, translate=spec.translate,
            )  # fmt: skip
        scores = classification_scores(logits, test.labels, spec.classes)
        metrics["test_accuracy"] = scores["accuracy"]
        metrics["baseline_accuracy"] = scores["baseline_accuracy"]
        metrics["num_test"] = scores["num_examples"]
    phases = {**seconds, **{name: value for name, value in run.seconds.items() if name != "total"}}
    phases["test"] = time.perf_counter() - mark
    phases["total"] = time.perf_counter() - started
    phases = {name: round(value, 3) for name, value in phases.items()}
    RunFolder(run.path).update_run(metrics=metrics, seconds=phases, is_held_out=problem.is_held_out)
    return ImageRun(run=run, metrics=metrics, seconds=phases, is_held_out=problem.is_held_out)


def _fit_into(
    problem: ImageProblem, plan: Plan, seconds_left: float, *, budget: float, most_epochs: float
) -> tuple[ImageProblem, int, str]:
    """The size of network and the number of steps that suit the time, from steps and predictions timed here."""
    start = time.perf_counter()
    step, startup, forward = _measure(problem, plan, budget)
    per_epoch = problem.steps_in(1.0)
    # Evaluations, and the final test with up to six views of the images that the network is unsure about.
    tests = forward * (len(problem.valid) * 5 + 3 * len(problem.test))
    reserve = _RESERVE_SECONDS + _RESERVE_SHARE * budget

    def steps_left() -> int:
        left = seconds_left - (time.perf_counter() - start) - startup - tests - reserve
        return max(
            1, int(left / step)
        )  # one step is the least that is a training; the note says what there was time for

    if problem.dials.size is None and problem.own_model is None:
        size = choose_size(
            epochs_of_thin=steps_left() / per_epoch,
            num_train=len(problem.train),
            resolution=problem.spec.image_size,
            channels=problem.spec.channels,
            num_classes=len(problem.spec.classes),
        )
        if size != problem.spec.size:
            problem = problem.with_size(size)
            step, startup, forward = _measure(problem, plan, budget)
            tests = forward * (len(problem.valid) * 5 + 3 * len(problem.test))
    most = problem.steps_in(most_epochs)
    num_steps = min(steps_left(), most)
    limit = f"at most {most_epochs:g} epochs" if num_steps == most else f"{budget / 60:g} min"
    name = problem.spec.size or problem.spec.model_reference
    reason = (
        f"{num_steps:,} steps ({num_steps / per_epoch:.1f} epochs) of the {name} network: "
        f"{step * 1e3:.0f} ms a step, {limit}" + (" are too short for more" if num_steps == 1 else "")
    )
    return problem, num_steps, reason


def _measure(problem: ImageProblem, plan: Plan, budget: float) -> tuple[float, float, float]:
    """Seconds of a step, of what is paid once, and of the prediction of one image."""
    task, device = problem.task(problem.steps_in(1.0)), Device(plan.device)
    with random_state_kept(device), settings_of(plan, device):
        time_of = measure_step_time(task, plan, seconds=min(5.0, 0.02 * budget))
        model = task.model().to(device.torch_device)
        some = problem.test.images[:512]
        predict_logits(model, some[:64], device, precision=plan.precision, flip=False, translate=0)
        mark = time.perf_counter()
        predict_logits(model, some, device, precision=plan.precision, flip=False, translate=0)
        return time_of.step, time_of.startup, (time.perf_counter() - mark) / len(some)


def _dials_of(folder: RunFolder) -> ImageDials:
    try:
        dials = ImageDials(**folder.read_json("run.json")["source"]["dials"])
    except (KeyError, TypeError) as error:
        raise CheckpointError("run.json of an image run holds its dials", got=f"{folder.path}: {error}") from error
    if dials.path is not None and not Path(dials.path).exists():
        raise UsageError(
            "The images of the run are where they were", got=f"{dials.path}, which is gone", remedy="Put them back"
        )
    return dials


def _open(path: str | Path) -> tuple[RunFolder, ClassifierSpec, nn.Module]:
    folder = RunFolder.open(path)
    if not is_image_run(path):
        raise UsageError("eval, predict and export are for runs of the image application", got=str(path))
    if not (folder.path / "model.safetensors").is_file():
        raise CheckpointError(
            "A run that has ended holds model.safetensors", got=f"none in {path}", remedy=f"volano resume {path}"
        )
    spec = ClassifierSpec.from_json(folder.read_json("image.json"))
    model = make_classifier(spec, _own_model(spec.model_reference))
    load_weights(model, folder.path / "model.safetensors")
    return folder, spec, model.eval()


def _predict(model: nn.Module, spec: ClassifierSpec, images: torch.Tensor, device: str | None) -> torch.Tensor:
    place = Device(device)
    return predict_logits(
        model.to(place.torch_device), images, place, precision="fp32", flip=spec.flip, translate=spec.translate
    )


def _own_model(reference: str | None) -> Callable[..., Any] | None:
    if reference is None:
        return None
    function = load_reference(reference)
    if not callable(function):
        raise UsageError("--model names a function that makes a model", got=f"{reference}: {type(function).__name__}")
    return function


def _in_terms_of(spec: ClassifierSpec, images: LabelledImages) -> LabelledImages:
    unknown = sorted(set(images.classes) - set(spec.classes))
    if unknown:
        raise DataError(
            "Images to evaluate on are of the run's classes",
            got=f"also {', '.join(unknown[:5])}",
            remedy=f"The run knows {', '.join(spec.classes[:10])}",
        )
    if images.images.shape[1] != spec.channels or images.images.shape[-1] != spec.image_size:
        raise DataError(
            "Images to evaluate on are like those of the run",
            got=f"{images.images.shape[1]} channels of {images.images.shape[-1]} px",
            remedy=f"The run takes {spec.channels} channels of {spec.image_size} px",
        )
    numbers = torch.tensor([spec.classes.index(name) for name in images.classes])
    return LabelledImages(
        images=images.images, labels=numbers[images.labels], classes=spec.classes, names=images.names,
        faults=images.faults,
    )  # fmt: skip


def _image_files(files: Sequence[str | Path]) -> list[Path]:
    found: list[Path] = []
    for file in map(Path, files):
        if not file.exists():
            raise UsageError("A file to predict exists", got=str(file))
        if file.is_dir():
            found += listed(file)
        elif is_image(file.name):
            found.append(file)
        else:
            raise UsageError("A file to predict is named like an image (.jpg, .png, ...)", got=str(file))
    if not found:
        raise DataError("There are images to predict", got=f"none in {', '.join(map(str, files))}")
    return found


def _write_faults(folder: RunFolder, problem: ImageProblem) -> None:
    for fault in problem.faults:
        folder.append("quarantine.jsonl", {"set": "images", **asdict(fault)})


def _write_csv(path: Path, predictions: list[dict[str, Any]], top_k: int) -> None:
    try:
        file = path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise UsageError("The table can be written", got=f"{path}: {error.strerror}") from error
    with file:
        writer = csv.writer(file)
        writer.writerow(["path", *(name for place in range(1, top_k + 1) for name in (f"top{place}", f"p{place}"))])
        for row in predictions:
            writer.writerow([row["path"], *(value for one in row["top"] for value in one.values())])
