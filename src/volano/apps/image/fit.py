"""The network, the plan and the number of steps of an image run that suit its time."""

from __future__ import annotations

import time

from volano.apps.application import Fitted, TimeLimit
from volano.apps.image.recipe import DEFAULT_EPOCHS, MAX_EPOCHS, choose_size
from volano.apps.image.scores import predict_logits
from volano.apps.image.training import ImageTraining
from volano.plan import Plan
from volano.training import throwaway_settings

# Of the minutes asked for, kept back: for writing, the pictures and the report (0.8 s of processor
# time), the interpreter's end, and because shared machines were seen to run 1.4 times slower for
# minutes than in the few seconds that are timed here (docs/log.md).
_RESERVE_SHARE, _RESERVE_SECONDS = 0.15, 3.0


def fit_into(application: ImageTraining, limit: TimeLimit) -> Fitted:
    """Finds the size of network, the plan and the number of steps, from steps and predictions timed
    here."""
    most_epochs = DEFAULT_EPOCHS if limit.is_default else MAX_EPOCHS
    reserve = _RESERVE_SECONDS + _RESERVE_SHARE * limit.seconds

    def steps_left(application: ImageTraining, step: float, startup: float, forward: float) -> int:
        # Evaluations, and the final test with up to six views of the images that the network is
        # unsure about.
        num_predictions = 5 * len(application.valid) + 3 * len(application.test)
        left = limit.left() - startup - forward * num_predictions - reserve
        return max(1, int(left / step))  # one step is the least that is a training

    first = limit.choose_plan(
        application.task(application.steps_in(1.0)), seconds=limit.seconds, is_raced=False
    )
    if application.options.size is None and application.own_model is None:
        epochs_of_thin = steps_left(
            application, *_measure(application, first.plan, limit)
        ) / application.steps_in(1.0)
        size = choose_size(
            epochs_of_thin=epochs_of_thin,
            num_train=len(application.train),
            resolution=application.spec.image_size,
            channels=application.spec.channels,
            num_classes=len(application.spec.classes),
        )
        application = application.with_size(size)
    most = application.steps_in(most_epochs)
    chosen = limit.choose_plan(
        application.task(application.steps_in(1.0)), seconds=max(1.0, limit.left() - reserve)
    )
    step, startup, forward = _measure(application, chosen.plan, limit)
    num_steps = min(steps_left(application, step, startup, forward), most)
    length = (
        f"at most {most_epochs:g} epochs" if num_steps == most else f"{limit.seconds / 60:g} min"
    )
    name = application.spec.size or application.spec.model_reference
    reason = (
        f"{num_steps:,} steps ({num_steps / application.steps_in(1.0):.1f} epochs) of the {name} "
        "network: "
        f"{step * 1e3:.0f} ms a step, {length}"
        + (" are too short for more" if num_steps == 1 else "")
    )
    return Fitted(application=application, chosen=chosen, num_steps=num_steps, reasons=(reason,))


def _measure(
    application: ImageTraining, plan: Plan, limit: TimeLimit
) -> tuple[float, float, float]:
    """Returns the seconds of a step, of what is paid once, and of the prediction of one image."""
    task = application.task(application.steps_in(1.0))
    time_of = limit.measure_step(task, plan, min(5.0, 0.02 * limit.seconds))
    with throwaway_settings(plan) as device:
        model = task.model().to(device.torch_device)
        some, _ = application.test.first(512)
        predict_logits(model, some[:64], device, precision=plan.precision, flip=False, translate=0)
        mark = time.perf_counter()
        predict_logits(model, some, device, precision=plan.precision, flip=False, translate=0)
        return time_of.step, time_of.startup, (time.perf_counter() - mark) / len(some)
