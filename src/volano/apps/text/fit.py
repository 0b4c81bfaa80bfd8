"""The depth, the batch, the plan and the number of steps of a language model that suit its time."""

from __future__ import annotations

import itertools
import time

import torch

from volano.apps.application import Fitted
from volano.apps.text.network import Decoder
from volano.apps.text.recipe import MOST_EPOCHS, depths_by_operations, least_tokens_for
from volano.apps.text.training import TextTraining, shaped
from volano.plan import Plan
from volano.running.fit_time import EvaluationCosts, TrainingSize, fit_time
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import LEAST_STEPS
from volano.training import throwaway_settings

# A batch is halved, at most so often, if the time has fewer steps than this for it.
_MOST_HALVINGS, _STEPS_OF_WHOLE_BATCHES = 3, 100
_MOST_EVALUATIONS = 8
_PREVIEW_SECONDS = 0.5  # sixty tokens at two to ten milliseconds
# Muon's five Newton-Schulz steps cost about so many times the width, in tokens' forward and
# backward passes.
_MUON_TOKENS_A_CHANNEL = 4.4
_NUM_TIMED = 4


def fit_into(application: TextTraining, limit: TimeLimit) -> Fitted:
    """Finds depth, batch, plan and number of steps, from steps timed here."""
    choices = _choices(application, limit)
    sizes = [_size(some, least) for some, least in choices]

    def evaluation_costs(number: int, plan: Plan) -> EvaluationCosts:
        some = choices[number][0]
        seconds = _window_seconds(some, plan)
        # A quarter of each window of the final test is context only.
        num_windows = 4 / 3 * len(some.held) / some.spec.context
        return EvaluationCosts(
            evaluation=48 * seconds + _PREVIEW_SECONDS, test=num_windows * seconds
        )

    found = fit_time(
        limit, sizes, evaluation_costs, num_evaluations=_MOST_EVALUATIONS, least_test_share=1.0,
        least_evaluation_share=1.0,
    )  # fmt: skip
    application = choices[found.number][0].with_options(
        num_evaluations=found.schedule.num_evaluations
    )
    pace = found.pace(limit, f"at most {MOST_EPOCHS:g} epochs")
    return Fitted.of(application, found, *application.reasons(found.schedule.num_steps, pace))


def _size(application: TextTraining, least_steps: int) -> TrainingSize:
    shape = application.spec.shape()
    muon = _MUON_TOKENS_A_CHANNEL * shape.width
    return TrainingSize(
        name=f"network of depth {shape.depth} at {application.tokens_per_step:,} tokens a step",
        task=lambda: application.task(1000),
        cost=shape.flops_per_token * (application.tokens_per_step + muon),
        example_cost=shape.flops_per_token,
        least_steps=least_steps,
        most_steps=application.steps_in(MOST_EPOCHS),
    )


def _choices(application: TextTraining, limit: TimeLimit) -> list[tuple[TextTraining, int]]:
    """Returns depths with their batches, the largest first, and the steps from which they are what
    the recipe's rules choose; behind the smallest, halves of its batch."""
    spec, options, place = application.spec, application.options, limit.planning.place
    depths = [(options.depth, 0.0)] if options.depth else depths_by_operations(
        num_bytes=spec.num_train_bytes, vocab_size=spec.vocab_size, context=spec.context
    )  # fmt: skip
    choices = []
    for depth, flops in depths:
        least = (
            flops / application.with_shape(depth=depth, batch_size=1).spec.shape().flops_per_token
        )
        some = shaped(application, place, flops=flops, num_tokens=max(1.0, least), depth=depth)
        choices += reversed([*_with_larger_batches(some, least, is_open=not options.batch_size)])
    smallest = choices[-1][0]
    if not options.batch_size:
        sizes = [smallest.batch_size // 2**halvings for halvings in range(1, _MOST_HALVINGS + 1)]
        for size in filter(None, sizes):
            half = smallest.with_shape(depth=smallest.spec.depth, batch_size=size)
            choices.append((half, _STEPS_OF_WHOLE_BATCHES))
    choices[-1] = (choices[-1][0], LEAST_STEPS)
    return choices


def _with_larger_batches(
    application: TextTraining, least_tokens: float, *, is_open: bool
) -> list[tuple[TextTraining, int]]:
    """Returns the application with its batch, twice that, ..., while a run over the text can be
    long enough for them, and the least steps of each."""
    most_tokens = MOST_EPOCHS * len(application.train)
    found = []
    for doublings in itertools.count():
        size = 2**doublings * application.batch_size
        tokens = size * application.spec.context
        least = least_tokens if not doublings else max(least_tokens, least_tokens_for(tokens))
        is_too_large = least > most_tokens or size > max(1, len(application.windows) // 8)
        if doublings and (not is_open or is_too_large or tokens > 2**19):
            return found
        some = application.with_shape(depth=application.spec.depth, batch_size=size)
        found.append((some, max(_STEPS_OF_WHOLE_BATCHES, int(least / tokens))))
    raise AssertionError("batches do not end")


def _window_seconds(application: TextTraining, plan: Plan) -> float:
    """Returns the seconds of the prediction of one window, from a batch timed here."""
    with (
        throwaway_settings(plan) as device,
        torch.inference_mode(),
        device.autocast(plan.precision),
    ):
        model = Decoder(application.spec.shape()).to(device.torch_device)
        batch = device.move(torch.zeros(_NUM_TIMED, application.spec.context, dtype=torch.int64))
        model(batch[:1])
        device.synchronize()
        mark = time.perf_counter()
        model(batch)
        device.synchronize()
        return (time.perf_counter() - mark) / len(batch)
