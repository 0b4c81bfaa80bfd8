"""The text application's verbs for classes: train, resume, eval and predict."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from volano.apps.classification import classification_scores
from volano.apps.predictions import write_prediction_table
from volano.apps.text.application import TextRun
from volano.apps.text.classify.classes import (
    BAG,
    DEPTH,
    HEAD,
    ClassesSpec,
    ClassifyApplication,
    choose_context,
    predict_texts,
    read_classes,
)
from volano.apps.text.network import DecoderShape
from volano.apps.text.tokenizer import Tokenizer, choose_vocab_size, load_tokenizer, train_tokenizer
from volano.data.sources import read_labelled_texts, read_texts
from volano.device import Device
from volano.errors import CheckpointError, DataError, UsageError
from volano.plan import Plan
from volano.running.checks import check_data_is_there, check_ended, check_minutes, evaluation_name
from volano.running.end_run import end_run
from volano.running.plan_run import PlanOptions, choose_plan
from volano.running.processes import Processes, check_processes, execute
from volano.running.train import check_unfinished, go_on
from volano.task import Task
from volano.training import (
    Observer,
    Run,
    RunFolder,
    Safety,
    check_plan,
    load_weights,
    make_progress,
    measure_step_time,
    run_trial,
    save_tensors,
)

DEFAULT_MINUTES = 1.0
_RESERVE_SHARE, _RESERVE_SECONDS = 0.10, 1.5
# Shares of the time left that the decoder reads and that its head learns; what remains is for the head's second
# training, on everything, should it be kept.
_READ_SHARE, _HEAD_SHARE = 0.4, 0.2
# With less, the head is not tried: a decoder that has read for a second knows nothing.
_LEAST_SECONDS = 4.0
_MOST_HEAD_EPOCHS, _MOST_READ_EPOCHS = 6, 10
_PRETRAINED = "pretrained.safetensors"


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What is needed to train the language model's head again."""

    tokenizer: Tokenizer
    shape: DecoderShape
    weights: dict[str, Tensor]
    num_steps: int
    accuracy: float


def train_text_classes(
    path: str | Path | None,
    *,
    minutes: float | None = None,
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
) -> TextRun:
    """Trains a classifier of texts: a bag of hashed n-grams, then in the time that is left a language model's head; the
    better on a tenth of the training texts is trained on all of them, kept and tested.

    Args:
        path: see ``read_labelled_texts``.
        minutes: for the whole call, at most; 1 without. A bag takes what it takes, seconds for ten thousand texts.
        seed: of the split and of both trainings.
        device, out, pins, forbid, budget, plan, safety, processes, observer: see ``volano.train``. The trainings are
            too short to measure plans: the choices that need no measuring are taken.

    Raises:
        VolanoError: as its subclasses say.
    """
    started = time.perf_counter()
    check_minutes(minutes, None)
    if path is None:
        raise UsageError("--classify takes a PATH of labelled texts", got="none")
    if not 0 <= seed < 2**63:
        raise UsageError("--seed is a whole number from 0 to 2**63 - 1", got=seed)
    planning = PlanOptions(device=device, pins=pins or {}, forbid=forbid or {}, budget=budget, plan=plan)
    path = Path(path).absolute()
    time_given = 60 * (DEFAULT_MINUTES if minutes is None else minutes)
    folder = RunFolder.reserve(out, "text")
    application = read_classes(path, seed=seed)
    seconds = {"data": time.perf_counter() - started}
    mark = time.perf_counter()
    task, num_processes = application.bag_task(everything=False), (processes or Processes()).world_size
    chosen = choose_plan(task, planning.preferring(workers=0), world_size=num_processes, is_raced=False)
    plan = chosen.plan
    check_plan(task, plan)
    check_processes(application.bag_task(everything=True), plan, processes)  # before the time that the trials take
    bag = run_trial(task, plan)
    candidates = {BAG: round(bag.metrics["accuracy"], 4)}
    left = (1 - _RESERVE_SHARE) * time_given - _RESERVE_SECONDS - (time.perf_counter() - started) - 1.2 * bag.seconds
    head, reason = _try_head(application, plan, planning.pins, left)
    if head is not None:
        candidates[HEAD] = round(head.accuracy, 4)
    kept = _better(candidates)
    reasons = [*chosen.reasons, reason, _told(candidates, kept, len(application.choice))]
    spec, task = _kept(application, candidates, head if kept == HEAD else None)
    plan = plan if kept == BAG else _head_plan(plan, planning.pins)
    check_processes(task, plan, processes)
    seconds["plan"] = time.perf_counter() - mark
    folder.make()
    dataclasses.replace(chosen, plan=plan).write(folder)
    _write_application(folder, application, spec, head if kept == HEAD else None)
    options = {"path": str(path), "seed": seed, "num_steps": task.num_steps}
    source = {"kind": "text", "goal": "classes", "dials": options, "minutes": minutes, "origin": application.origin}
    notices = (*application.notices, *_fault_notices(application), *reasons)
    observer = observer or make_progress()
    run = execute(
        task, plan, folder, observer=observer, source=source, notices=notices, safety=safety, processes=processes
    )
    return _finish(run, application, spec, seconds, started, observer)


def resume_text_classes(
    path: str | Path, *, observer: Observer | None = None, processes: Processes | None = None
) -> TextRun:
    """Goes on with a run of a classifier of texts, and tests it.

    Raises:
        UsageError: it is finished, or its texts are no longer there.
        CheckpointError: no whole checkpoint, or the texts have changed.
    """
    started = time.perf_counter()
    folder = RunFolder.open(path)
    if "test_accuracy" in (folder.read_json("run.json").get("metrics") or {}):
        check_unfinished(folder)
    spec, application = ClassesSpec.from_json(folder.read_json("text.json")), _application_of(folder)
    head = _load_head(folder, spec)
    seconds = {"data": time.perf_counter() - started}
    observer = observer or make_progress()
    run = go_on(_kept(application, spec.candidates, head)[1], folder, observer=observer, processes=processes)
    return _finish(run, application, spec, seconds, started, observer)


def task_of_classes(folder: RunFolder) -> Task:
    """The task of a run of a classifier of texts, made again from its texts and its folder."""
    spec = ClassesSpec.from_json(folder.read_json("text.json"))
    return _kept(_application_of(folder), spec.candidates, _load_head(folder, spec))[1]


def eval_text_classes(
    path: str | Path, texts: str | Path | None = None, *, device: str | None = None
) -> dict[str, Any]:
    """Scores of a run's classifier.

    Args:
        path: the run's folder.
        texts: labelled texts of the run's classes (their test set where they name one); None is the run's own test set.
        device: as torch writes it.

    Returns:
        See ``classification_scores``. The same stands in the run's folder as ``eval-NAME.json``.
    """
    folder, spec, model, tokenizer = _open(path)
    if texts is None:
        application = _application_of(folder)
        test, name, origin, faults, notices = application.test, "test", f"{application.origin}, test", (), ()
    else:
        sets = read_labelled_texts(Path(texts), classes=spec.classes, least_classes=1)
        test, name, origin = sets.test or sets.train, evaluation_name(texts), sets.origin
        faults, notices = sets.faults, sets.notices
    place = Device(device)
    logits = predict_texts(model.to(place.torch_device), spec, test.texts, place, tokenizer)
    scores = classification_scores(logits, torch.from_numpy(test.labels), spec.classes)
    result = {"run": str(folder.path), "origin": origin, **scores, "candidates": spec.candidates, "kept": spec.kept}
    result["unreadable"] = [asdict(fault) for fault in faults]
    result["notices"] = list(notices)
    folder.write_json(f"eval-{name}.json", result)
    return result


def predict_text_classes(
    path: str | Path,
    files: Sequence[str | Path],
    *,
    top_k: int = 3,
    csv_path: str | Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """The most likely classes of text files, of those in folders, and of the rows of tables.

    Returns:
        ``predictions``: path and ``top`` (class and probability, the likeliest first) of each text; ``unreadable``:
        path and reason of the others; ``notices``; ``top_k``.

    Raises:
        UsageError: a file does not exist.
        DataError: none could be read.
    """
    _, spec, model, tokenizer = _open(path)
    if top_k < 1:
        raise UsageError("--top-k is a whole number above 0", got=top_k)
    top_k = min(top_k, len(spec.classes))
    found, faults, notices = read_texts([Path(file) for file in files])
    if not found:
        reason = faults[0].reason if faults else "no text"
        raise DataError("One of the texts can be read", got=f"none; the first: {reason}")
    place = Device(device)
    logits = predict_texts(model.to(place.torch_device), spec, [text for _, text in found], place, tokenizer)
    top = logits.softmax(1).topk(top_k)
    predictions = [
        {
            "path": name,
            "top": [
                {"class": spec.classes[number], "probability": round(probability, 6)}
                for number, probability in zip(numbers, probabilities, strict=True)
            ],
        }
        for (name, _), numbers, probabilities in zip(found, top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    if csv_path is not None:
        write_prediction_table(Path(csv_path), predictions, top_k)
    unreadable = [{"path": fault.path, "reason": fault.reason} for fault in faults]
    told = {"unreadable": unreadable, "notices": list(notices)}
    return {"run": str(path), "top_k": top_k, "predictions": predictions, **told}


def _try_head(
    application: ClassifyApplication, plan: Plan, pins: Mapping[str, Any], left: float
) -> tuple[_Head | None, str]:
    """The language model's head, trained on what is not held back, in the seconds that are left; and what is to be
    said of it."""
    if left < _LEAST_SECONDS:
        return None, f"{HEAD}: not tried, {max(0.0, left):.0f} s left are too few"
    mark = time.perf_counter()
    texts = [application.train.texts[row] for row in application.fit]
    tokenizer = train_tokenizer(texts, choose_vocab_size(sum(map(len, texts))))
    tokens = np.concatenate(list(tokenizer.encode_documents(texts)))
    context = choose_context(texts, tokenizer)
    if len(tokens) < 4 * context:
        return None, f"{HEAD}: not tried, {len(tokens):,} tokens are too few"
    shape = DecoderShape(vocab_size=tokenizer.vocab_size, context=context, depth=DEPTH)
    left -= time.perf_counter() - mark
    read = application.language_task(tokens, shape, 1000)
    read_steps = _affordable(read, plan, _READ_SHARE * left, most=_MOST_READ_EPOCHS * len(tokens) // read.batch_size)
    trial = run_trial(application.language_task(tokens, shape, read_steps), plan)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in trial.model.state_dict().items()}
    task = application.head_task(tokenizer, shape, weights, 1000, everything=False)
    plan = _head_plan(plan, pins)
    head_steps = _affordable(task, plan, _HEAD_SHARE * left, most=_MOST_HEAD_EPOCHS * task.steps_per_epoch)
    trial = run_trial(application.head_task(tokenizer, shape, weights, head_steps, everything=False), plan)
    head = _Head(
        tokenizer=tokenizer, shape=shape, weights=weights, num_steps=head_steps, accuracy=trial.metrics["accuracy"]
    )
    return head, f"{HEAD}: depth {DEPTH}, read for {read_steps:,} steps, learned classes for {head_steps:,}"


def _affordable(task: Task, plan: Plan, seconds: float, *, most: int) -> int:
    start = time.perf_counter()
    step = measure_step_time(task, plan, seconds=min(1.0, 0.1 * seconds)).step
    return max(1, min(most, int((seconds - (time.perf_counter() - start)) / step)))


def _head_plan(plan: Plan, pins: Mapping[str, Any]) -> Plan:
    """The plan for tokens in tensors: they can stay where the arithmetic is, unless a pin says otherwise."""
    own = {"feed": "resident", "optimizer": "as_given"}
    return plan.pin(**{name: value for name, value in own.items() if pins.get(name) is None})


def _better(candidates: dict[str, float]) -> str:
    """The more accurate one; the bag, which comes first, where they are equal."""
    return max(candidates, key=lambda name: candidates[name])


def _kept(
    application: ClassifyApplication, candidates: dict[str, float], head: _Head | None
) -> tuple[ClassesSpec, Task]:
    """What is kept, and the Task that trains it on all training texts."""
    common: dict[str, Any] = {
        "classes": application.train.classes, "candidates": candidates, "num_buckets": application.num_buckets
    }  # fmt: skip
    if head is None:
        return ClassesSpec(kept=BAG, **common), application.bag_task(everything=True)
    spec = ClassesSpec(
        kept=HEAD,
        vocab_size=head.shape.vocab_size,
        context=head.shape.context,
        depth=head.shape.depth,
        tokenizer_digest=head.tokenizer.digest(),
        **common,
    )
    return spec, application.head_task(head.tokenizer, head.shape, head.weights, head.num_steps, everything=True)


def _told(candidates: dict[str, float], kept: str, num: int) -> str:
    figures = ", ".join(f"{name} {accuracy:.4f}" for name, accuracy in candidates.items())
    return f"kept: {kept}; accuracy on {num:,} training texts held back to choose: {figures}"


def _load_head(folder: RunFolder, spec: ClassesSpec) -> _Head | None:
    tokenizer = _tokenizer_of(folder, spec)
    if tokenizer is None:
        return None
    try:
        weights = load_file(folder.path / _PRETRAINED)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{_PRETRAINED} of a run can be read", got=f"{folder.path}: {error}") from error
    num_steps = folder.read_json("run.json")["source"]["dials"]["num_steps"]
    accuracy = spec.candidates[HEAD]
    return _Head(tokenizer=tokenizer, shape=spec.shape(), weights=weights, num_steps=num_steps, accuracy=accuracy)


def _fault_notices(application: ClassifyApplication) -> list[str]:
    told = [f"left out: {fault.path}: {fault.reason}" for fault in application.faults[:3]]
    if len(application.faults) > len(told):
        told.append(f"{len(application.faults) - len(told)} more are listed in quarantine.jsonl")
    return told


def _write_application(
    folder: RunFolder, application: ClassifyApplication, spec: ClassesSpec, head: _Head | None
) -> None:
    folder.write_json("text.json", spec.to_json())
    if head is not None:
        (folder.path / "tokenizer.json").write_bytes(head.tokenizer.to_bytes())
        save_tensors(head.weights, folder.path / _PRETRAINED)
    for fault in application.faults:
        folder.append("quarantine.jsonl", {"set": "texts", **asdict(fault)})


def _finish(
    run: Run,
    application: ClassifyApplication,
    spec: ClassesSpec,
    seconds: dict[str, float],
    started: float,
    observer: Observer,
) -> TextRun:
    mark = time.perf_counter()
    folder = RunFolder(run.path)
    metrics: dict[str, Any] = dict(run.metrics)
    if run.status == "finished":
        tokenizer = _tokenizer_of(folder, spec)
        logits = predict_texts(run.model, spec, application.test.texts, Device(run.plan.device), tokenizer)
        scores = classification_scores(logits, torch.from_numpy(application.test.labels), spec.classes)
        result = {"origin": f"{application.origin}, test", **scores, "candidates": spec.candidates, "kept": spec.kept}
        folder.write_json("eval-test.json", result)
        metrics["test_accuracy"] = scores["accuracy"]
        metrics["baseline_accuracy"] = scores["baseline_accuracy"]
        metrics["num_test"] = scores["num_examples"]
        metrics["candidates"], metrics["kept"] = spec.candidates, spec.kept
    run, phases = end_run(
        run,
        observer,
        metrics=metrics,
        seconds=seconds,
        started=started,
        tested=mark,
        is_held_out=application.is_held_out,
    )
    return TextRun(run=run, metrics=metrics, seconds=phases)


def _application_of(folder: RunFolder) -> ClassifyApplication:
    try:
        options = folder.read_json("run.json")["source"]["dials"]
        path, seed = Path(options["path"]), int(options["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError("run.json of a text run holds its dials", got=f"{folder.path}: {error}") from error
    check_data_is_there(path, "texts")
    return read_classes(path, seed=seed)


def _tokenizer_of(folder: RunFolder, spec: ClassesSpec) -> Tokenizer | None:
    if spec.tokenizer_digest is None:
        return None
    return load_tokenizer(folder.path / "tokenizer.json", spec.tokenizer_digest)


def _open(path: str | Path) -> tuple[RunFolder, ClassesSpec, nn.Module, Tokenizer | None]:
    folder = RunFolder.open(path)
    spec = ClassesSpec.from_json(folder.read_json("text.json"))
    check_ended(folder)
    model = spec.build()
    load_weights(model, folder.path / "model.safetensors")
    return folder, spec, model.eval(), _tokenizer_of(folder, spec)
