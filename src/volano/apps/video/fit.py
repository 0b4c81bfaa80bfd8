"""The network, the batch, the plan, the number of steps and the effort of the final figures of a
video run that suit its time."""

from __future__ import annotations

import dataclasses
import time

from volano.apps.application import Fitted
from volano.apps.video.integrate_flow import ClipSampling
from volano.apps.video.recipe import FEATURE_STEPS, LEAST_BATCH, STEPS_OF_WHOLE_BATCHES
from volano.apps.video.scoring.features import train_feature_net
from volano.apps.video.scoring.figures import NUM_SHOWN, sampling_for_figures
from volano.apps.video.scoring.scores import generate_clips
from volano.apps.video.training import NUM_GENERATED, NUM_VALID, VideoTraining
from volano.plan import Plan
from volano.record.format import count_text
from volano.running.fit_time import EvaluationCosts, FittedSize, TrainingSize, fit_time
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import LEAST_STEPS
from volano.training import throwaway_settings

_MOST_EVALUATIONS = 10
# Under a quarter of the usual effort the figures on generated clips say little.
_LEAST_EFFORT = 0.25
_NUM_TIMED = 8


def fit_into(application: VideoTraining, limit: TimeLimit) -> Fitted:
    """Finds network, batch, plan, number of steps and effort of the final figures, from steps and
    answers timed here."""
    before = application
    application, found = _fitted(application, limit)
    whole = application.with_options(batch_size=before.options.batch_size)
    application_of, reason = whole.with_network_for(limit.planning.place, found.schedule.num_steps)
    if application_of is not whole:
        application, found = _fitted(application_of, limit)
    num_steps, effort = found.schedule.num_steps, found.schedule.more_share
    views = num_steps * application.recipe_of(num_steps).batch_size
    steps = count_text(num_steps, "step")
    length = f"{steps} ({views:,} clips seen) of the {found.network.name}"
    reasons = (reason, f"{length}: {found.pace(limit)}", *_said_of(effort))
    evaluated = application.with_options(
        num_generated=round(NUM_GENERATED * effort), feature_steps=round(FEATURE_STEPS * effort),
        num_evaluations=found.schedule.num_evaluations,
    )  # fmt: skip
    return Fitted.of(evaluated, found, *reasons)


def _fitted(application: VideoTraining, limit: TimeLimit) -> tuple[VideoTraining, FittedSize]:
    """Returns the application with the batch that suits the time, and what the time comes to."""
    choices = [application]
    size = application.recipe_of(1).batch_size
    while application.options.batch_size is None and size >= 2 * LEAST_BATCH:
        size //= 2
        choices.append(application.with_options(batch_size=size))
    sizes = [
        TrainingSize(
            name=f"{some.spec.network} at {some.recipe_of(1).batch_size} clips a step",
            task=lambda some=some: some.task(some.steps_in(1.0)),
            cost=some.recipe_of(1).batch_size,
            least_steps=STEPS_OF_WHOLE_BATCHES,
        )
        for some in choices
    ]
    sizes[-1] = dataclasses.replace(sizes[-1], least_steps=LEAST_STEPS)
    found = fit_time(
        limit, sizes, lambda number, plan: _evaluation_costs(choices[number], plan),
        num_evaluations=_MOST_EVALUATIONS, least_more=_LEAST_EFFORT, least_test_share=1.0,
        least_evaluation_share=1.0,
    )  # fmt: skip
    return choices[found.number], found


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


def _evaluation_costs(application: VideoTraining, plan: Plan) -> EvaluationCosts:
    """Measures the network's answer for one clip, a step of making a clip (two answers if a class
    guides it) and a step of the feature net. Some clips are made to be looked at in any case."""
    spec = application.spec
    train, test = application.sets.train.frames[:256, : spec.num_frames], application.sets.test
    with throwaway_settings(plan) as device:
        model = application.task(1).model().to(device.torch_device).eval()

        def seconds_of(sampling: ClipSampling, count: int) -> float:
            mark = time.perf_counter()
            generate_clips(
                model, spec, device, count=count, num_frames=spec.num_frames, sampling=sampling,
                precision=plan.precision,
            )  # fmt: skip
            return (time.perf_counter() - mark) / count

        plain = ClipSampling(steps=1)
        guided = dataclasses.replace(sampling_for_figures(spec), steps=1)
        seconds_of(guided, 2)
        answer = seconds_of(plain, _NUM_TIMED)
        sampling_step = answer if guided == plain else seconds_of(guided, _NUM_TIMED)
        train_feature_net(train, spec.scale, device, num_steps=1, seed=0)
        mark = time.perf_counter()
        train_feature_net(train, spec.scale, device, num_steps=1, seed=0)
        device.synchronize()
        feature_step = time.perf_counter() - mark
    made = ClipSampling().steps * sampling_step
    return EvaluationCosts(
        evaluation=answer * min(NUM_VALID, len(test)),
        test=answer * len(test) + NUM_SHOWN * made,
        more=(NUM_GENERATED - NUM_SHOWN) * made + FEATURE_STEPS * feature_step,
    )
