"""The network, the batch, the plan and the number of steps of an image run that suit its time."""

from __future__ import annotations

import dataclasses
import time

from volano.apps.application import Fitted
from volano.apps.image.fine_tuning.recipe import MOST_FINE_TUNING_EPOCHS
from volano.apps.image.recipe import (
    DEFAULT_EPOCHS,
    LEAST_HALVED_BATCH,
    MOST_EPOCHS,
    STEPS_OF_WHOLE_BATCHES,
    relative_costs,
)
from volano.apps.image.scores import predict_logits
from volano.apps.image.training import ImageTraining
from volano.plan import Plan
from volano.pretrained.recipe import choose_tune
from volano.pretrained.tuning import trainable_in_words
from volano.record.format import count_text
from volano.running.fit_time import EvaluationCosts, TrainingSize, fit_time
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import LEAST_STEPS, TimeSchedule
from volano.training import throwaway_settings

# Views of images about which the network is unsure, in predictions of all images.
_VIEWS_COST = 2.0
_MOST_EVALUATIONS = 10
# Of fewer images an accuracy says little.
_LEAST_TESTED = 256
_NUM_TIMED = 128


def fit_into(application: ImageTraining, limit: TimeLimit) -> Fitted:
    """Finds the size of network, the batch, the plan and the number of steps, from steps and
    predictions timed here."""
    most_epochs = _most_epochs(application, limit)
    # What a frozen trunk computes is kept only if examples come again.
    planned_epochs = most_epochs if application.is_solved else 1.0
    choices = _choices(application)
    sizes = [
        TrainingSize(
            name=some.size_in_words,
            task=lambda some=some: some.task(some.steps_in(planned_epochs)),
            cost=cost * some.recipe(1.0).batch_size,
            example_cost=cost,
            least_steps=least,
            most_steps=some.steps_in(most_epochs),
        )
        for some, cost, least in choices
    ]

    def evaluation_costs(number: int, plan: Plan) -> EvaluationCosts:
        some = choices[number][0]
        forward = _forward_seconds(some, plan)
        test = forward * len(some.test)
        filling = forward * len(some.train) if plan.prefix == "cached" else 0.0
        return EvaluationCosts(
            evaluation=forward * len(some.valid), test=test, once=filling,
            more=_VIEWS_COST * test if some.has_views else 0.0,
        )  # fmt: skip

    found = fit_time(
        limit, sizes, evaluation_costs, num_evaluations=_MOST_EVALUATIONS,
        least_test_share=_LEAST_TESTED / len(application.test),
        least_evaluation_share=_LEAST_TESTED / len(application.valid),
    )  # fmt: skip
    application = choices[found.number][0]
    tested, told = _with_tests(application, found.schedule)
    num_steps = found.schedule.num_steps
    epochs = num_steps / application.steps_in(1.0)
    pace = found.pace(limit, f"at most {most_epochs:g} epochs")
    steps = count_text(num_steps, "step")
    said = f"{steps} ({epochs:.1f} epochs) of the {found.network.name}: {pace}"
    return Fitted.of(tested, found, said, *told)


def _choices(application: ImageTraining) -> list[tuple[ImageTraining, float, int]]:
    """Returns networks with their batches, the largest first; the cost of an image in those of
    ``thin``, and the steps from which they are worth it."""
    costs = {"": (1.0, 0.0)}
    if application.options.size is None and application.spec.size is not None:
        costs = relative_costs(
            num_train=len(application.train),
            resolution=application.spec.image_size,
            channels=application.spec.channels,
            num_classes=len(application.spec.classes),
        )
    choices = []
    for size, (cost, epochs) in costs.items():
        some = application.with_size(size) if size else application
        least = max(STEPS_OF_WHOLE_BATCHES, some.steps_in(epochs))
        choices.append((some, cost, least))
    # Only the smallest is worth smaller batches: what is gained is steps.
    some, cost, least = choices[-1]
    may_shrink = application.options.batch_size is None and application.network is None
    while may_shrink and some.recipe(1.0).batch_size >= 2 * LEAST_HALVED_BATCH:
        some = some.with_options(batch_size=some.recipe(1.0).batch_size // 2)
        choices.append((some, cost, least))
    choices[-1] = (choices[-1][0], cost, 0 if application.is_solved else LEAST_STEPS)
    return choices


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
    views = schedule.more_share > 0.0 or not application.has_views
    tested = application.with_options(
        num_evaluations=schedule.num_evaluations, num_valid=num_valid, num_test=num_test,
        views=views,
    )  # fmt: skip
    said = []
    if not views:
        said.append("the final test looks at each image once: the time is too short for more views")
    if num_test is not None:
        said.append(
            f"the final test looks at {num_test:,} of {len(application.test):,} images: the time "
            "is too short for all"
        )
    return tested, said


def _most_epochs(application: ImageTraining, limit: TimeLimit) -> float:
    if application.options.tune is not None:
        return MOST_FINE_TUNING_EPOCHS[application.options.tune]
    return DEFAULT_EPOCHS if limit.is_default else MOST_EPOCHS


def begun_into(
    application: ImageTraining, limit: TimeLimit, epochs: float | None = None
) -> tuple[ImageTraining, tuple[str, ...]]:
    """Begins fine-tuning: solves the head on frozen features, and chooses what is trained in the
    time, or in so many epochs. Returns reasons too."""
    start = application.begin(limit.planning.place)
    found = choose_tune(
        application.options.tune,
        num_examples=len(application.train),
        num_classes=len(application.spec.classes),
        pass_seconds=start.example_seconds * len(application.train),
        seconds=limit.left() if epochs is None else None,
        epochs=epochs,
    )
    begun = dataclasses.replace(application, start=start).with_tune(found.tune)
    plan = Plan.baseline(limit.planning.place.name)
    trainable = trainable_in_words(begun.task(begun.steps_in(1.0)), plan)
    return begun, (f"{trainable}; {found.reason}", start.probe.in_words())


def _forward_seconds(application: ImageTraining, plan: Plan) -> float:
    """Returns the seconds of the prediction of one image."""
    if application.network is not None and application.begun.example_seconds:
        return application.begun.example_seconds  # timed already, over more images
    task = application.task(application.steps_in(1.0))
    with throwaway_settings(plan) as device:
        model = task.model().to(device.torch_device)
        some, _ = application.test.first(_NUM_TIMED)
        views = application.spec.views(further=False)
        predict_logits(model, some[:16], device, views, precision=plan.precision)
        mark = time.perf_counter()
        predict_logits(model, some, device, views, precision=plan.precision)
        return (time.perf_counter() - mark) / len(some)
