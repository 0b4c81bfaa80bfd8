"""The plan and the number of steps of a training on labelled clips that suit its time."""

from __future__ import annotations

import time

from volano.apps.application import Fitted
from volano.apps.image.fine_tuning.recipe import MOST_FINE_TUNING_EPOCHS
from volano.apps.video.classify.augment import looked_at
from volano.apps.video.classify.model_spec import predict_frames
from volano.apps.video.classify.recipe import MOST_EPOCHS
from volano.apps.video.classify.training import ClipClassifyTraining
from volano.device import Device
from volano.plan import Plan
from volano.pretrained.network_references import HEAD
from volano.pretrained.tuning import trainable_in_words
from volano.record.format import count_text
from volano.running.fit_time import EvaluationCosts, TrainingSize, fit_time
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import LEAST_STEPS
from volano.training import throwaway_settings

_MOST_EVALUATIONS = 10
_NUM_TIMED = 16


def fit_into(application: ClipClassifyTraining, limit: TimeLimit) -> Fitted:
    """Finds the plan and the number of steps; a pretrained network's head is solved first."""
    application, said = begun_on(application, limit.planning.place)
    most = MOST_EPOCHS if application.network is None else MOST_FINE_TUNING_EPOCHS[HEAD]
    # What a frozen trunk computes is kept only if clips come again.
    planned = 1.0 if application.network is None else most
    size = TrainingSize(
        name=application.network_in_words,
        task=lambda: application.task(application.steps_in(planned)),
        least_steps=LEAST_STEPS if application.network is None else 0,
        most_steps=application.steps_in(most),
    )

    def evaluation_costs(number: int, plan: Plan) -> EvaluationCosts:  # noqa: ARG001 - one size
        seconds = _forward_seconds(application, plan)
        num_once = len(application.train) if plan.prefix == "cached" else 0
        return EvaluationCosts(
            evaluation=seconds * len(application.valid), test=seconds * len(application.test),
            once=seconds * num_once,
        )  # fmt: skip

    found = fit_time(
        limit, [size], evaluation_costs, num_evaluations=_MOST_EVALUATIONS,
        least_test_share=1.0, least_evaluation_share=1.0,
    )  # fmt: skip
    num_steps = found.schedule.num_steps
    epochs = num_steps / application.steps_in(1.0)
    steps = count_text(num_steps, "step")
    told = f"{steps} ({epochs:.1f} epochs) of the {found.network.name}: "
    application = application.with_options(num_evaluations=found.schedule.num_evaluations)
    return Fitted.of(application, found, *said, told + found.pace(limit))


def begun_on(
    application: ClipClassifyTraining, place: Device
) -> tuple[ClipClassifyTraining, tuple[str, ...]]:
    """Solves the head of a pretrained network, on a device; returns it with reasons. Without such a
    network nothing is done."""
    if application.network is None:
        return application, ()
    begun = application.solved_on(place)
    trainable = trainable_in_words(begun.task(1), Plan.baseline(place.name))
    return begun, (trainable, begun.begun.probe.in_words())


def _forward_seconds(application: ClipClassifyTraining, plan: Plan) -> float:
    """Returns the seconds of the prediction of one clip."""
    if application.start is not None and application.start.example_seconds:
        return application.start.example_seconds
    some = looked_at(application.test.frames[:_NUM_TIMED])
    with throwaway_settings(plan) as device:
        model = application.task(1).model().to(device.torch_device)
        predict_frames(model, some[:2], device, precision=plan.precision)
        mark = time.perf_counter()
        predict_frames(model, some, device, precision=plan.precision)
        return (time.perf_counter() - mark) / len(some)
