"""The network, the plan, the number of steps and the effort of the final figures of a video run
that suit its time."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from volano.apps.application import Fitted, TimeLimit
from volano.apps.video.recipe import FEATURE_STEPS
from volano.apps.video.sampler import ClipSampling
from volano.apps.video.scoring.features import train_feature_net
from volano.apps.video.scoring.figures import NUM_SHOWN, sampling_for_figures
from volano.apps.video.scoring.scores import generate_clips
from volano.apps.video.training import NUM_GENERATED, VideoTraining
from volano.plan import Plan
from volano.planner import PlanResult
from volano.training import throwaway_settings

# Of the minutes asked for, kept back, as for images: for the interpreter's start and end, and
# because shared machines were seen to run slower for minutes than in the few seconds that are timed
# here (docs/log.md).
_RESERVE_SHARE, _RESERVE_SECONDS = 0.12, 4.0
# The figures on generated clips may take so much of the minutes; under a quarter of the usual
# effort they say little.
_FIGURES_SHARE, _LEAST_EFFORT = 0.15, 0.25


@dataclass(frozen=True, kw_only=True)
class _Costs:
    """The seconds of a training step, of what is paid once, of the network's answer for one clip,
    of one step of making a clip (two answers if a class guides it), of a feature step."""

    step: float
    startup: float
    answer: float
    sampling_step: float
    feature_step: float


def fit_into(application: VideoTraining, limit: TimeLimit) -> Fitted:
    """Finds network, plan, number of steps and effort of the final figures, from steps and answers
    timed here."""

    def planned(application: VideoTraining) -> PlanResult:
        task = application.task(application.steps_in(1.0))
        return limit.choose_plan(task, seconds=max(1.0, (1 - _RESERVE_SHARE) * limit.left()))

    chosen = planned(application)
    costs = _measure(application, chosen.plan, limit)
    reserve = _RESERVE_SECONDS + _RESERVE_SHARE * limit.seconds

    def steps_left(application: VideoTraining, costs: _Costs, effort: float) -> int:
        recipe = application.recipe(1000)
        answers = (recipe.num_evaluations + 4) * min(128, len(application.sets.test)) + len(
            application.sets.test
        )
        spent = costs.startup + costs.answer * answers
        if not effort:  # some are made to be looked at in any case
            spent += NUM_SHOWN * ClipSampling().steps * costs.sampling_step
        left = limit.left() - spent - effort * _figures_seconds(costs) - reserve
        return max(1, int(left / costs.step))  # one step is the least that is a training

    effort = _effort(costs, limit.seconds)
    before = application
    num_steps = steps_left(application, costs, effort)
    application, reason = application.with_network_for(limit.planning.place, num_steps)
    if application is not before:
        chosen = planned(application)
        costs = _measure(application, chosen.plan, limit)
        effort = _effort(costs, limit.seconds)
    num_steps = steps_left(application, costs, effort)
    application = _with_effort(application, effort)
    views = num_steps * application.recipe(num_steps).batch_size
    length = (
        f"{num_steps:,} steps ({views:,} clips seen): {costs.step * 1e3:.0f} ms a step, "
        f"{limit.seconds / 60:g} min"
    )
    length += " are too short for more" if num_steps == 1 else ""
    reasons = (reason, length, *_said_of(effort))
    return Fitted(application=application, chosen=chosen, num_steps=num_steps, reasons=reasons)


def _figures_seconds(costs: _Costs) -> float:
    return (
        NUM_GENERATED * ClipSampling().steps * costs.sampling_step
        + FEATURE_STEPS * costs.feature_step
    )


def _effort(costs: _Costs, seconds: float) -> float:
    """Returns the share of the usual effort of the figures on generated clips; 0 leaves them
    out."""
    effort = min(1.0, _FIGURES_SHARE * seconds / _figures_seconds(costs))
    return effort if effort >= _LEAST_EFFORT else 0.0


def _with_effort(application: VideoTraining, effort: float) -> VideoTraining:
    options = dataclasses.replace(
        application.options,
        num_generated=round(NUM_GENERATED * effort),
        feature_steps=round(FEATURE_STEPS * effort),
    )
    return dataclasses.replace(application, options=options)


def _said_of(effort: float) -> list[str]:
    if effort == 0.0:
        return [
            "no distances of generated clips: the time is too short to train the net that they need"
        ]
    if effort < 1.0:
        return [
            f"distances of generated clips from {round(NUM_GENERATED * effort)} instead of "
            f"{NUM_GENERATED} clips"
        ]
    return []


def _measure(application: VideoTraining, plan: Plan, limit: TimeLimit) -> _Costs:
    task = application.task(application.steps_in(1.0))
    time_of = limit.measure_step(task, plan, min(5.0, 0.02 * limit.seconds))
    spec, train = (
        application.spec,
        application.sets.train.frames[:256, : application.spec.num_frames],
    )
    with throwaway_settings(plan) as device:
        model = task.model().to(device.torch_device).eval()

        def seconds_of(sampling: ClipSampling, count: int) -> float:
            mark = time.perf_counter()
            generate_clips(
                model, spec, device, count=count, num_frames=spec.num_frames, sampling=sampling,
                seed=0, precision=plan.precision,
            )  # fmt: skip
            return (time.perf_counter() - mark) / count

        plain, guided = (
            ClipSampling(steps=1),
            dataclasses.replace(sampling_for_figures(spec), steps=1),
        )
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
