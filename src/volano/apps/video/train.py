"""The video application's verbs that train: train and resume. What is done with a run stands in video_results.py."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from volano.apps.video.application import NUM_GENERATED, VideoApplication, VideoOptions, read_video_application
from volano.apps.video.features import train_feature_net
from volano.apps.video.figures import NUM_SHOWN, options_of, sampling_for_figures, write_results
from volano.apps.video.recipe import FEATURE_STEPS, TRANSFORMER_FROM_VIEWS
from volano.apps.video.sampler import ClipSampling
from volano.apps.video.scores import generate_clips
from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.plan import Plan
from volano.planner import share_of_rank
from volano.running.checks import check_minutes
from volano.running.end_run import end_run, with_notices
from volano.running.plan_run import ChosenPlan, PlanOptions, choose_plan
from volano.running.processes import Processes, check_processes, execute
from volano.running.train import check_unfinished, go_on
from volano.task import Task
from volano.training import Observer, Run, RunFolder, Safety, check_plan, make_progress, measure_step_time, settings_of

DEFAULT_MINUTES = 3.0
# Of the minutes asked for, kept back, as for images: for the interpreter's start and end, and because shared machines
# were seen to run slower for minutes than in the few seconds that are timed here (docs/log.md).
_RESERVE_SHARE, _RESERVE_SECONDS = 0.12, 4.0
# The figures on generated clips may take so much of the minutes; under a quarter of the usual effort they say little.
_FIGURES_SHARE, _LEAST_EFFORT = 0.15, 0.25


@dataclass(frozen=True, kw_only=True)
class VideoRun:
    """A run of the video application. ``metrics`` and ``seconds`` include the final test; ``self_test`` is that of the
    distances of generated clips (see ``SelfTest``), None where there are none."""

    run: Run
    metrics: dict[str, Any]
    seconds: dict[str, float]
    self_test: dict[str, Any] | None
    is_held_out: bool


def train_video(
    path: str | Path | None = None,
    *,
    minutes: float | None = None,
    epochs: float | None = None,
    network: str | None = None,
    frames: int | None = None,
    image_size: int | None = None,
    fps: float | None = None,
    batch_size: int | None = None,
    flip: str = "auto",
    seed: int = 0,
    device: str | None = None,
    out: str | Path | None = None,
    pins: Mapping[str, Any] | None = None,
    forbid: Mapping[str, Any] | None = None,
    budget: int | None = None,
    plan: Plan | str | Path | None = None,
    observer: Observer | None = None,
    safety: Safety | None = None,
    processes: Processes | None = None,
) -> VideoRun:
    """Trains a model of clips that generates them and foretells how they go on, and tests it.

    Args:
        path: a folder of clips, see ``read_clip_folder``; None is the embedded sample.
        minutes: for the whole call, at most; turned into steps once, before the first. 3 if nothing is said.
        epochs: passes over the training clips, instead of minutes.
        network, image_size, fps, batch_size, flip, seed: see ``VideoOptions``; ``frames`` is its ``num_frames``.
        device, out, pins, forbid, budget, plan, observer, safety, processes: see ``volano.train``.

    Raises:
        VolanoError: as its subclasses say.
    """
    started = time.perf_counter()
    check_minutes(minutes, epochs)
    options = _options(
        path, epochs=epochs, network=network, frames=frames, image_size=image_size, fps=fps, batch_size=batch_size,
        flip=flip, seed=seed,
    )  # fmt: skip
    planning = PlanOptions(device=device, pins=pins or {}, forbid=forbid or {}, budget=budget, plan=plan)
    observer = observer or make_progress()
    folder = RunFolder.reserve(out, "video")
    application = read_video_application(options)
    seconds = {"data": time.perf_counter() - started}
    mark = time.perf_counter()
    world_size = (processes or Processes()).world_size
    if epochs is None:
        time_given = 60 * (DEFAULT_MINUTES if minutes is None else minutes)
        application, chosen, num_steps, reasons = _fit_into(
            application, planning, time_given - (mark - started), budget=time_given, world_size=world_size
        )
    else:
        application, reason = _choose_network(application, planning.place, application.steps_in(epochs))
        num_steps, reasons = application.steps_in(epochs), [reason]
        chosen = choose_plan(application.task(num_steps), planning, world_size=world_size)
    task, plan = application.task(num_steps), chosen.plan
    seconds["plan"] = time.perf_counter() - mark
    resolved = {**application.options.to_json(), "num_steps": num_steps, "network": application.spec.network}
    check_plan(task, plan)
    check_processes(task, plan, processes)
    folder.make()
    chosen.write(folder)
    folder.write_json("video.json", application.spec.to_json())
    for fault in application.sets.faults:
        folder.append("quarantine.jsonl", {"set": "clips", **asdict(fault)})
    source = {"kind": "video", "dials": resolved, "minutes": minutes, "origin": application.sets.origin}
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


def resume_video(path: str | Path, *, observer: Observer | None = None, processes: Processes | None = None) -> VideoRun:
    """Goes on with a run of the video application, and tests it.

    Raises:
        UsageError: it is finished, or its clips are no longer there.
        CheckpointError: no whole checkpoint, or the clips have changed.
    """
    started = time.perf_counter()
    folder = RunFolder.open(path)
    if "psnr_first_frame" in (folder.read_json("run.json").get("metrics") or {}):
        check_unfinished(folder)  # a run that was interrupted in its final test has that left to do
    options = options_of(folder)
    application = read_video_application(options)
    seconds = {"data": time.perf_counter() - started}
    assert options.num_steps is not None  # resolved before step 0
    observer = observer or make_progress()
    run = go_on(application.task(options.num_steps), folder, observer=observer, processes=processes)
    return _finish(run, application, seconds, started, observer)


@contextlib.contextmanager
def task_to_plan(
    path: str | Path | None, planning: PlanOptions, *, minutes: float | None = None, **options: Any
) -> Iterator[Task]:
    """The task that :func:`train_video` would train with these options, to be planned and not trained."""
    started = time.perf_counter()
    check_minutes(minutes, options.get("epochs"))
    given = _options(path, **options)
    application = read_video_application(given)
    if given.epochs is not None:
        application, _ = _choose_network(application, planning.place, application.steps_in(given.epochs))
        yield application.task(application.steps_in(given.epochs))
        return
    time_given = 60 * (DEFAULT_MINUTES if minutes is None else minutes)
    left = time_given - (time.perf_counter() - started)
    quick = planning.quick()
    application, _, num_steps, _ = _fit_into(application, quick, left, budget=time_given, world_size=1)
    yield application.task(num_steps)


def _options(
    path: str | Path | None, *, frames: int | None = None, flip: str = "auto", seed: int = 0, **options: Any
) -> VideoOptions:
    return VideoOptions(
        path=None if path is None else str(Path(path).absolute()), num_frames=frames, flip=flip, seed=seed, **options
    )


def task_of(folder: RunFolder) -> Task:
    """The task of a run of the video application, made again from its clips and options."""
    options = options_of(folder)
    assert options.num_steps is not None  # resolved before step 0
    return read_video_application(options).task(options.num_steps)


def _finish(
    run: Run, application: VideoApplication, seconds: dict[str, float], started: float, observer: Observer
) -> VideoRun:
    mark = time.perf_counter()
    metrics: dict[str, Any] = dict(run.metrics)
    self_test = None
    if run.status == "finished":
        device = Device(run.plan.device)
        with settings_of(run.plan, device), random_state_kept(device):
            figures, self_test, notices = write_results(
                RunFolder(run.path), run.model, application, device, precision=run.plan.precision
            )
        metrics |= figures
        run = with_notices(run, notices, observer)
    is_held_out = application.sets.is_held_out
    run, phases = end_run(
        run, observer, metrics=metrics, seconds=seconds, started=started, tested=mark, is_held_out=is_held_out
    )
    return VideoRun(run=run, metrics=metrics, seconds=phases, self_test=self_test, is_held_out=is_held_out)


# ---- minutes become steps, once


@dataclass(frozen=True, kw_only=True)
class _Costs:
    """Seconds: of a training step, of what is paid once, of the network's answer for one clip, of one step of making a
    clip (two answers where a class guides it), of a feature step."""

    step: float
    startup: float
    answer: float
    sampling_step: float
    feature_step: float


def _fit_into(
    application: VideoApplication, planning: PlanOptions, seconds_left: float, *, budget: float, world_size: int
) -> tuple[VideoApplication, ChosenPlan, int, list[str]]:
    """The network, the plan, the number of steps and the effort of the final figures that suit the time."""
    start = time.perf_counter()

    def planned(application: VideoApplication) -> ChosenPlan:
        left = seconds_left - (time.perf_counter() - start)
        task = application.task(application.steps_in(1.0))
        return choose_plan(task, planning, world_size=world_size, seconds=max(1.0, (1 - _RESERVE_SHARE) * left))

    chosen = planned(application)
    costs = _measure(application, chosen.plan, budget, world_size)
    reserve = _RESERVE_SECONDS + _RESERVE_SHARE * budget

    def steps_left(application: VideoApplication, costs: _Costs, effort: float) -> int:
        recipe = application.recipe(1000)
        answers = (recipe.num_evaluations + 4) * min(128, len(application.sets.test)) + len(application.sets.test)
        spent = time.perf_counter() - start + costs.startup + costs.answer * answers
        if not effort:  # some are made to be looked at in any case
            spent += NUM_SHOWN * ClipSampling().steps * costs.sampling_step
        left = seconds_left - spent - effort * _figures_seconds(costs) - reserve
        return max(1, int(left / costs.step))  # one step is the least that is a training

    effort = _effort(costs, budget)
    before = application
    application, reason = _choose_network(application, planning.place, steps_left(application, costs, effort))
    if application is not before:
        chosen = planned(application)
        costs = _measure(application, chosen.plan, budget, world_size)
        effort = _effort(costs, budget)
    num_steps = steps_left(application, costs, effort)
    application = _with_effort(application, effort)
    views = num_steps * application.recipe(num_steps).batch_size
    steps = f"{num_steps:,} steps ({views:,} clips seen): {costs.step * 1e3:.0f} ms a step, {budget / 60:g} min" + (
        " are too short for more" if num_steps == 1 else ""
    )
    return application, chosen, num_steps, [reason, steps, *_said_of(effort)]


def _choose_network(application: VideoApplication, place: Device, num_steps: int) -> tuple[VideoApplication, str]:
    """The network for a run of so many steps, and why it is that one."""
    if application.options.network is not None:
        return application, f"network={application.options.network}: as asked"
    views = num_steps * application.recipe(num_steps).batch_size
    if place.is_cpu:
        return application, "network=unet: on the CPU it learns motion soonest"
    if views < TRANSFORMER_FROM_VIEWS:
        return application, f"network=unet: {views:,} clips will be seen, under {TRANSFORMER_FROM_VIEWS:,}"
    larger = application.with_network("transformer")
    return (
        larger,
        f"network=transformer: {views:,} clips could be seen by the U-Net, which is enough for the larger one",
    )


def _figures_seconds(costs: _Costs) -> float:
    return NUM_GENERATED * ClipSampling().steps * costs.sampling_step + FEATURE_STEPS * costs.feature_step


def _effort(costs: _Costs, budget: float) -> float:
    """Share of the usual effort of the figures on generated clips; 0 leaves them out."""
    effort = min(1.0, _FIGURES_SHARE * budget / _figures_seconds(costs))
    return effort if effort >= _LEAST_EFFORT else 0.0


def _with_effort(application: VideoApplication, effort: float) -> VideoApplication:
    options = dataclasses.replace(
        application.options,
        num_generated=round(NUM_GENERATED * effort),
        feature_steps=round(FEATURE_STEPS * effort),
    )
    return dataclasses.replace(application, options=options)


def _said_of(effort: float) -> list[str]:
    if effort == 0.0:
        return ["no distances of generated clips: the time is too short to train the net that they need"]
    if effort < 1.0:
        return [f"distances of generated clips from {round(NUM_GENERATED * effort)} instead of {NUM_GENERATED} clips"]
    return []


def _measure(application: VideoApplication, plan: Plan, budget: float, world_size: int) -> _Costs:
    task, device = application.task(application.steps_in(1.0)), Device(plan.device)
    time_of = measure_step_time(*share_of_rank(task, plan, world_size), seconds=min(5.0, 0.02 * budget))
    spec, train = application.spec, application.sets.train.frames[:256, : application.spec.num_frames]
    with random_state_kept(device), settings_of(plan, device):
        model = task.model().to(device.torch_device).eval()

        def seconds_of(sampling: ClipSampling, count: int) -> float:
            mark = time.perf_counter()
            generate_clips(
                model, spec, device, count=count, num_frames=spec.num_frames, sampling=sampling, seed=0,
                precision=plan.precision,
            )  # fmt: skip
            return (time.perf_counter() - mark) / count

        plain, guided = ClipSampling(steps=1), dataclasses.replace(sampling_for_figures(spec), steps=1)
        seconds_of(guided, 8)
        answer = seconds_of(plain, 32)
        sampling_step = answer if guided == plain else seconds_of(guided, 32)
        train_feature_net(train, spec.scale, device, num_steps=1, seed=0)
        mark = time.perf_counter()
        train_feature_net(train, spec.scale, device, num_steps=2, seed=0)
        device.synchronize()
        return _Costs(
            step=time_of.step,
            startup=time_of.startup,
            answer=answer,
            sampling_step=sampling_step,
            feature_step=(time.perf_counter() - mark) / 2,
        )
