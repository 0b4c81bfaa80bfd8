"""The network, the plan and the number of steps of an image run that suit its time."""

from __future__ import annotations

import dataclasses
import time

from volano.apps.application import Fitted, TimeLimit
from volano.apps.image.recipe import DEFAULT_EPOCHS, MAX_EPOCHS, relative_costs
from volano.apps.image.scores import predict_logits
from volano.apps.image.training import ImageTraining
from volano.apps.time_schedule import (
    LEAST_STEPS,
    NetworkCosts,
    RunCosts,
    TimeSchedule,
    make_schedule,
)
from volano.plan import Plan
from volano.planner import PlanResult
from volano.training import StepTime, throwaway_settings

# Files, pictures, the report and the interpreter's end: 0.8 s of processor time, more on a shared
# machine (docs/log.md).
_WRITING_SECONDS = 2.0
# Steps are timed for this share of the time, at most so many seconds.
_TIMING_SHARE, _TIMING_SECONDS = 0.01, 3.0
# Views of images about which the network is unsure, in predictions of all images.
_VIEWS_FACTOR = 3.0
_MOST_EVALUATIONS = 10
# Of fewer images an accuracy says little.
_LEAST_TESTED = 256


def fit_into(application: ImageTraining, limit: TimeLimit) -> Fitted:
    """Finds the size of network, the plan and the number of steps, from steps and predictions timed
    here."""
    begun = limit.left()
    sizes = {"": (1.0, 0.0)}
    if application.options.size is None and application.own_model is None:
        sizes = relative_costs(
            num_train=len(application.train),
            resolution=application.spec.image_size,
            channels=application.spec.channels,
            num_classes=len(application.spec.classes),
        )
    # A plan that is measured for the smallest network would be of no use to another.
    chosen, timed, forward, said = _planned(application, limit, begun, is_raced=len(sizes) == 1)
    costs = _costs(application, limit, begun, timed, forward, sizes)
    schedule = make_schedule(costs, limit.seconds)
    if size := [*sizes][schedule.network]:
        if size != application.spec.size:
            application = application.with_size(size)
            chosen, timed, forward, said = _planned(application, limit, begun)
        elif len(sizes) > 1 and limit.planning_left(begun) > 0.0:
            chosen, timed, forward, said = _planned(application, limit, begun)
        costs = _costs(application, limit, begun, timed, forward, {size: (1.0, 0.0)})
        schedule = make_schedule(costs, limit.seconds)
    network = costs.networks[schedule.network]
    tested, told = _with_tests(application, schedule)
    reasons = (_in_words(application, schedule, network, limit), *said, *told)
    return Fitted(
        application=tested,
        chosen=chosen,
        num_steps=schedule.num_steps,
        reasons=reasons if schedule.warning is None else (*reasons, f"warning: {schedule.warning}"),
        length=limit.length_rule(schedule, network) if limit.world_size == 1 else None,
    )


def _planned(
    application: ImageTraining, limit: TimeLimit, begun: float, *, is_raced: bool = True
) -> tuple[PlanResult, StepTime, float, tuple[str, ...]]:
    """Returns a plan, the time of its steps, that of the prediction of an image, and reasons."""
    task = application.task(application.steps_in(1.0))
    chosen = limit.choose_plan(
        task,
        seconds=max(1.0, limit.left()),
        is_raced=is_raced,
        planning_seconds=limit.planning_left(begun),
    )
    timing = min(_TIMING_SECONDS, _TIMING_SHARE * limit.seconds)
    timed = limit.measure_step(task, chosen.plan, timing)
    chosen, timed, said = limit.with_fewer_threads(task, chosen, timed)
    return chosen, timed, _forward_seconds(application, chosen.plan), said


def _costs(
    application: ImageTraining,
    limit: TimeLimit,
    begun: float,
    timed: StepTime,
    forward: float,
    sizes: dict[str, tuple[float, float]],
) -> RunCosts:
    most_epochs = DEFAULT_EPOCHS if limit.is_default else MAX_EPOCHS
    networks = [
        NetworkCosts(
            name=f"{size or application.spec.size or application.spec.model_reference} network",
            step=relative * timed.step,
            startup=timed.startup,
            evaluation=relative * forward * len(application.valid),
            test=relative * forward * len(application.test),
            least_steps=max(LEAST_STEPS, application.steps_in(epochs)),
            most_steps=application.steps_in(most_epochs),
        )
        for size, (relative, epochs) in sizes.items()
    ]
    has_views = bool(application.spec.flip or application.spec.translate)
    return RunCosts(
        spent=limit.seconds - limit.left(),
        planning=begun - limit.left(),
        writing=_WRITING_SECONDS,
        networks=networks,
        num_evaluations=_MOST_EVALUATIONS,
        test_factor=_VIEWS_FACTOR if has_views else 1.0,
        least_test_share=_LEAST_TESTED / len(application.test),
        least_evaluation_share=_LEAST_TESTED / len(application.valid),
    )


def _with_tests(
    application: ImageTraining, schedule: TimeSchedule
) -> tuple[ImageTraining, list[str]]:
    """The application with the evaluations and the final test of a schedule, and what is said of
    them."""
    num_valid, num_test = (
        None if share >= 1.0 else max(1, round(share * len(images)))
        for share, images in (
            (schedule.evaluation_share, application.valid),
            (schedule.test_share, application.test),
        )
    )
    has_views = bool(application.spec.flip or application.spec.translate)
    views = schedule.test_factor > 1.0 or not has_views
    options = dataclasses.replace(
        application.options,
        num_evaluations=schedule.num_evaluations,
        num_valid=num_valid,
        num_test=num_test,
        views=views,
    )
    said = []
    if not views:
        said.append("the final test looks at each image once: the time is too short for more views")
    if num_test is not None:
        said.append(
            f"the final test looks at {num_test:,} of {len(application.test):,} images: the time "
            "is too short for all"
        )
    return dataclasses.replace(application, options=options), said


def _in_words(
    application: ImageTraining, schedule: TimeSchedule, network: NetworkCosts, limit: TimeLimit
) -> str:
    most_epochs = DEFAULT_EPOCHS if limit.is_default else MAX_EPOCHS
    is_most = schedule.num_steps == network.most_steps
    length = f"at most {most_epochs:g} epochs" if is_most else f"{limit.seconds / 60:g} min"
    epochs = schedule.num_steps / application.steps_in(1.0)
    return (
        f"{schedule.num_steps:,} steps ({epochs:.1f} epochs) of the {network.name}: "
        f"{network.step * 1e3:.3g} ms a step, {length}"
    )


def _forward_seconds(application: ImageTraining, plan: Plan) -> float:
    """Returns the seconds of the prediction of one image."""
    task = application.task(application.steps_in(1.0))
    with throwaway_settings(plan) as device:
        model = task.model().to(device.torch_device)
        some, _ = application.test.first(256)
        predict_logits(model, some[:64], device, precision=plan.precision, flip=False, translate=0)
        mark = time.perf_counter()
        predict_logits(model, some, device, precision=plan.precision, flip=False, translate=0)
        return (time.perf_counter() - mark) / len(some)
