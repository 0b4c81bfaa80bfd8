"""The text application's verbs that train a language model. What is done with a run stands in text_results.py."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from volano.apps.text.application import (
    TextApplication,
    TextOptions,
    TextRun,
    load_text_application,
    read_application,
    shaped,
)
from volano.apps.text.corpus import HELD_FILE, TRAIN_FILE
from volano.apps.text.model_spec import TextSpec
from volano.apps.text.network import Decoder
from volano.apps.text.recipe import MAX_EPOCHS
from volano.apps.text.scores import score_tokens
from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.errors import CheckpointError, UsageError
from volano.plan import Plan
from volano.planner import share_of_rank
from volano.running.checks import check_minutes
from volano.running.end_run import end_run
from volano.running.plan_run import ChosenPlan, PlanOptions, choose_plan
from volano.running.processes import Processes, check_processes, execute
from volano.running.train import check_unfinished, go_on
from volano.task import Task
from volano.training import Observer, Run, RunFolder, Safety, check_plan, make_progress, measure_step_time, settings_of

DEFAULT_MINUTES = 3.0
# As for images, kept back: for writing, for the interpreter's end, and because shared machines slow down.
_RESERVE_SHARE, _RESERVE_SECONDS = 0.10, 2.0
# Steps are timed for this share of the minutes, at most so many seconds, once or twice.
_TIMING_SHARE, _TIMING_SECONDS = 0.015, 4.0
# Planning may cost a share of the time that it is told of: so much of it is told for the probe, the rest for the shape
# that is trained.
_PROBE_SHARE = 0.3
# Of a plan's probe with torch.compile switched off: compiled steps were measured to take 0.7 of the time.
_COMPILED_SHARE = 0.7


def train_text(
    path: str | Path | None = None,
    *,
    minutes: float | None = None,
    epochs: float | None = None,
    depth: int | None = None,
    context: int | None = None,
    batch_size: int | None = None,
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
    """Trains a language model of a text, and tests it on the part held out.

    Args:
        path: a file or a folder, see ``find_texts``; None is Python's standard library.
        minutes: for the whole call, at most; turned into steps once, before the first. Without minutes and epochs it is
            3 minutes. At most 20 epochs.
        epochs: passes over the training text, instead of minutes.
        depth, context, batch_size, seed: see ``TextOptions``.
        device, out, pins, forbid, budget, plan, safety, processes, observer: see ``volano.train``.

    Raises:
        VolanoError: as its subclasses say.
    """
    started = time.perf_counter()
    check_minutes(minutes, epochs)
    options = TextOptions(
        path=None if path is None else str(Path(path).absolute()),
        epochs=epochs,
        depth=depth,
        batch_size=batch_size,
        seed=seed,
        **({} if context is None else {"context": context}),
    )
    planning = PlanOptions(device=device, pins=pins or {}, forbid=forbid or {}, budget=budget, plan=plan)
    observer = observer or make_progress()
    folder = RunFolder.reserve(out, "text")
    with tempfile.TemporaryDirectory(prefix=".volano-text-", dir=_nearest_folder(folder.path)) as scratch:
        application = read_application(options, Path(scratch))
        seconds = {"data": time.perf_counter() - started}
        mark = time.perf_counter()
        world_size = (processes or Processes()).world_size
        application, chosen, num_steps, reasons = _resolve(application, minutes, started, planning, world_size)
        task, plan = application.task(num_steps), chosen.plan
        check_plan(task, plan)
        check_processes(task, plan, processes)
        seconds["plan"] = time.perf_counter() - mark
        folder.make()
        chosen.write(folder)
        _write_application(folder, application, Path(scratch))
    resolved = {**application.options.to_json(), "num_steps": num_steps}
    source = {
        "kind": "text",
        "goal": "language",
        "dials": resolved,
        "minutes": minutes,
        "origin": application.spec.origin,
    }
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
    return _finish(run, application, seconds, started, observer)


def resume_text(path: str | Path, *, observer: Observer | None = None, processes: Processes | None = None) -> TextRun:
    """Goes on with a run of a language model, and tests it. The text that it was made from is not needed.

    Raises:
        UsageError: it is finished.
        CheckpointError: no whole checkpoint, or a file of the run is missing or has changed.
    """
    started = time.perf_counter()
    folder = RunFolder.open(path)
    if "bits_per_byte" in (folder.read_json("run.json").get("metrics") or {}):
        check_unfinished(folder)  # a run that was interrupted in its final test has that left to do
    application = application_of(folder)
    seconds = {"data": time.perf_counter() - started}
    observer = observer or make_progress()
    run = go_on(_task_of(application), folder, observer=observer, processes=processes)
    return _finish(run, application, seconds, started, observer)


@contextlib.contextmanager
def task_to_plan(
    path: str | Path | None, planning: PlanOptions, *, minutes: float | None = None, **options: Any
) -> Iterator[Task]:
    """The task that :func:`train_text` would train with these options, to be planned and not trained."""
    started = time.perf_counter()
    if options.pop("classify", None):
        raise UsageError(
            "What is explained is planned by measuring",
            got="--classify, whose trainings take seconds and are not",
            remedy="Leave it out",
        )
    check_minutes(minutes, options.get("epochs"))
    given = TextOptions(path=None if path is None else str(Path(path).absolute()), **options)
    with tempfile.TemporaryDirectory(prefix="volano-text-") as scratch:
        application = read_application(given, Path(scratch))
        quick = planning.quick()
        application, _, num_steps, _ = _resolve(application, minutes, started, quick, 1)
        yield application.task(num_steps)


def task_of(folder: RunFolder) -> Task:
    """The task of a run of the text application, made again from its folder."""
    goal = folder.read_json("run.json")["source"].get("goal")
    if goal == "classes":
        from volano.apps.text.classify.train import task_of_classes

        return task_of_classes(folder)
    return _task_of(application_of(folder))


def _task_of(application: TextApplication) -> Task:
    assert application.options.num_steps is not None  # resolved before step 0
    return application.task(application.options.num_steps)


def application_of(folder: RunFolder) -> TextApplication:
    """The problem of a run, from its folder.

    Raises:
        CheckpointError: the folder does not hold it.
    """
    try:
        options = TextOptions(**folder.read_json("run.json")["source"]["dials"])
    except (KeyError, TypeError) as error:
        raise CheckpointError("run.json of a text run holds its dials", got=f"{folder.path}: {error}") from error
    return load_text_application(options, TextSpec.from_json(folder.read_json("text.json")), folder.path)


def _resolve(
    application: TextApplication, minutes: float | None, started: float, planning: PlanOptions, world_size: int
) -> tuple[TextApplication, ChosenPlan, int, tuple[str, ...]]:
    """Depth, batch and number of steps, once, before the first; the plan; and the reasons for the numbers."""
    epochs = application.options.epochs
    if epochs is not None:
        application = shaped(application, planning.place, flops=None, num_tokens=epochs * len(application.train))
        num_steps = application.steps_in(epochs)
        chosen = choose_plan(application.task(num_steps), planning, world_size=world_size)
        length = f"{epochs:g} epochs as asked"
    else:
        application, chosen, num_steps, length = _fit_into(application, planning, minutes, started, world_size)
    shape = application.spec.shape()
    size = f"{num_steps:,} steps of {application.tokens_per_step:,} tokens"
    reasons = (
        f"depth {shape.depth} (width {shape.width}), {size}: {length}",
        f"regime: {application.recipe(num_steps).regime}",
    )
    return application, chosen, num_steps, reasons


def _fit_into(
    application: TextApplication, planning: PlanOptions, minutes: float | None, started: float, world_size: int
) -> tuple[TextApplication, ChosenPlan, int, str]:
    """The depth, the batch, the plan and the number of steps that suit the time, from steps timed here."""
    budget = 60 * (minutes or DEFAULT_MINUTES)
    timing = min(_TIMING_SECONDS, _TIMING_SHARE * budget)

    def seconds_left(evaluation: float) -> float:
        spent = time.perf_counter() - started
        return max(0.0, budget - spent - evaluation - _RESERVE_SECONDS - _RESERVE_SHARE * budget)

    # The shape that the time allows depends on the speed, and so on the plan: a quick one for a probe is close enough.
    depth = application.options.depth or application.spec.depth
    probe = shaped(application, planning.place, flops=1.0, num_tokens=1e6, depth=depth)
    quick = choose_plan(
        probe.task(1000), planning.without("compile", True), world_size=world_size, seconds=_PROBE_SHARE * budget
    )
    eager = quick.plan.pin(compile=False)
    step = measure_step_time(*share_of_rank(probe.task(1000), eager, world_size), seconds=timing).step * (
        _COMPILED_SHARE if quick.plan.compile else 1.0
    )
    tokens_per_second = probe.tokens_per_step / step
    flops_per_second = tokens_per_second * probe.spec.shape().flops_per_token
    flops = flops_per_second * seconds_left(0.0)
    num_tokens = flops / probe.spec.shape().flops_per_token
    application = shaped(
        application, planning.place, flops=flops, num_tokens=min(num_tokens, MAX_EPOCHS * len(application.train))
    )
    chosen = choose_plan(
        application.task(1000),
        planning,
        world_size=world_size,
        seconds=max(1.0, (1 - _PROBE_SHARE) * seconds_left(0.0)),
    )
    measured = measure_step_time(*share_of_rank(application.task(1000), chosen.plan, world_size), seconds=timing)
    left = seconds_left(_evaluation_seconds(application, chosen.plan) + measured.startup)
    most = application.steps_in(MAX_EPOCHS)
    num_steps = max(1, min(most, int(left / measured.step)))
    limit = f"at most {MAX_EPOCHS:g} epochs" if num_steps == most else f"{budget / 60:g} min"
    length = f"{measured.step * 1e3:.0f} ms a step, {limit}" + (", which is short" if num_steps == 1 else "")
    return application, chosen, num_steps, length


def _evaluation_seconds(application: TextApplication, plan: Plan) -> float:
    """Seconds of the final test, of the evaluations and of the previews, from one batch timed here."""
    device = Device(plan.device)
    with random_state_kept(device), settings_of(plan, device), torch.inference_mode(), device.autocast(plan.precision):
        model = Decoder(application.spec.shape()).to(device.torch_device)
        batch = device.move(torch.zeros(8, application.spec.context, dtype=torch.int64))
        model(batch)
        mark = time.perf_counter()
        model(batch)
        device.synchronize()
        per_window = (time.perf_counter() - mark) / len(batch)
    preview = 0.5  # sixty tokens at two to ten milliseconds
    num_test = 4 / 3 * len(application.held) / application.spec.context
    return per_window * (num_test + 8 * 48) + 8 * preview


def _write_application(folder: RunFolder, application: TextApplication, scratch: Path) -> None:
    folder.write_json("text.json", application.spec.to_json())
    (folder.path / "tokenizer.json").write_bytes(application.tokenizer.to_bytes())
    for name in (TRAIN_FILE, HELD_FILE):  # they are mapped; a rename leaves the mapping as it is
        shutil.move(scratch / name, folder.path / name)
    for fault in application.faults:
        folder.append("quarantine.jsonl", {"set": "text", **asdict(fault)})


def _finish(
    run: Run, application: TextApplication, seconds: dict[str, float], started: float, observer: Observer
) -> TextRun:
    mark = time.perf_counter()
    folder = RunFolder(run.path)
    metrics: dict[str, Any] = dict(run.metrics)
    if run.status == "finished":
        scores = held_out_scores(run.model, application, Device(run.plan.device), run.plan)
        folder.write_json("eval-test.json", scores)
        for name in ("bits_per_byte", "perplexity", "bytes_per_token"):
            metrics[name] = scores[name]
        metrics |= {f"bits_per_byte_{name}": value for name, value in scores["baselines"].items()}
        metrics["num_test_bytes"] = scores["num_bytes"]
        metrics["tokens_per_second"] = _tokens_per_second(folder, application)
    run, phases = end_run(run, observer, metrics=metrics, seconds=seconds, started=started, tested=mark)
    return TextRun(run=run, metrics=metrics, seconds=phases)


def held_out_scores(model: nn.Module, application: TextApplication, device: Device, plan: Plan) -> dict[str, Any]:
    """See ``score_tokens``; with ``baselines``, what xz and bz2 reach on the same bytes after the training text."""
    assert isinstance(model, Decoder)
    with settings_of(plan, device):
        scores = score_tokens(model, application.held, application.tokenizer, device, precision=plan.precision)
    assert scores["num_bytes"] == application.spec.num_held_bytes
    return {**scores, "baselines": application.spec.baselines, "origin": f"{application.spec.origin}, held out"}


def _tokens_per_second(folder: RunFolder, application: TextApplication) -> float | None:
    """The median over the logged lines, as training throughput."""
    rates = sorted(line["examples_per_second"] for line in folder.read_lines("metrics.jsonl") if "lr" in line)
    return round(rates[len(rates) // 2] * application.spec.context, 1) if rates else None


def _nearest_folder(path: Path) -> Path:
    """The first folder above a path that exists, so that a rename into the path is one within a file system."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())
