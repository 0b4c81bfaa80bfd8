"""The depth, the batch, the plan and the number of steps of a language model that suit its time."""

from __future__ import annotations

import time

import torch

from volano.apps.application import Fitted, TimeLimit
from volano.apps.text.network import Decoder
from volano.apps.text.recipe import MAX_EPOCHS
from volano.apps.text.training import TextTraining, shaped
from volano.apps.time_schedule import (
    LEAST_STEPS,
    NetworkCosts,
    RunCosts,
    make_schedule,
)
from volano.plan import Plan
from volano.training import StepTime, throwaway_settings

# The files, the report and the interpreter's end.
_WRITING_SECONDS = 2.0
# Of the time, what is not training by the first estimate, before depth and batch are known.
_OTHERS_SHARE = 0.2
# Steps are timed for this share of the minutes, at most so many seconds, once or twice.
_TIMING_SHARE, _TIMING_SECONDS = 0.01, 3.0
# A batch is halved, at most so often, if the time has fewer steps than this for it.
_MOST_HALVINGS, _STEPS_OF_WHOLE_BATCHES = 3, 100
_MOST_EVALUATIONS = 8
_PREVIEW_SECONDS = 0.5  # sixty tokens at two to ten milliseconds
# Planning may cost a share of the time that it is given: so much of it is given for the probe, the
# rest for the shape that is trained.
_PROBE_SHARE = 0.3
# Of a plan's probe with torch.compile switched off: compiled steps were measured to take 0.7 of the
# time.
_COMPILED_SHARE = 0.7


def fit_into(application: TextTraining, limit: TimeLimit) -> Fitted:
    """Finds depth, batch, plan and number of steps, from steps timed here."""
    begun = limit.left()
    timing = min(_TIMING_SECONDS, _TIMING_SHARE * limit.seconds)
    place = limit.planning.place

    # The shape that the time allows depends on the speed, and so on the plan: a quick one for a
    # probe is close enough.
    depth = application.options.depth or application.spec.depth
    has_batch = application.options.batch_size is not None
    probe = shaped(application, place, flops=1.0, num_tokens=1e6, depth=depth)
    quick = limit.choose_plan(
        probe.task(1000),
        planning=limit.planning.without("compile", True),
        seconds=_PROBE_SHARE * limit.seconds,
        planning_seconds=_PROBE_SHARE * limit.planning_left(begun),
    )
    eager = quick.plan.pin(compile=False)
    step = limit.measure_step(probe.task(1000), eager, timing).step
    step *= _COMPILED_SHARE if quick.plan.compile else 1.0
    left = max(0.0, limit.left() - _OTHERS_SHARE * limit.seconds)
    flops = left * probe.tokens_per_step / step * probe.spec.shape().flops_per_token
    num_tokens = flops / probe.spec.shape().flops_per_token
    num_tokens = min(num_tokens, MAX_EPOCHS * len(application.train))
    application = shaped(application, place, flops=flops, num_tokens=num_tokens)
    chosen = limit.choose_plan(
        application.task(1000), seconds=max(1.0, left), planning_seconds=limit.planning_left(begun)
    )
    timed = limit.measure_step(application.task(1000), chosen.plan, timing)
    chosen, timed, said = limit.with_fewer_threads(application.task(1000), chosen, timed)
    per_window = _window_seconds(application, chosen.plan)
    sizes = [application]
    if not has_batch:
        sizes += _halved(application)
    networks = [
        _network(size, timed.step * size.batch_size / application.batch_size, timed, per_window)
        for size in sizes
    ]
    costs = RunCosts(
        spent=limit.seconds - limit.left(),
        planning=begun - limit.left(),
        writing=_WRITING_SECONDS,
        networks=networks,
        num_evaluations=_MOST_EVALUATIONS,
        least_test_share=1.0,
        least_evaluation_share=1.0,
    )
    schedule = make_schedule(costs, limit.seconds)
    network = networks[schedule.network]
    application = sizes[schedule.network].with_evaluations(schedule.num_evaluations)
    num_steps = schedule.num_steps
    is_most = num_steps == network.most_steps
    length = f"at most {MAX_EPOCHS:g} epochs" if is_most else f"{limit.seconds / 60:g} min"
    reasons = application.reasons(num_steps, f"{network.step * 1e3:.3g} ms a step, {length}")
    if schedule.warning is not None:
        reasons = (*reasons, f"warning: {schedule.warning}")
    rule = limit.length_rule(schedule, network) if limit.world_size == 1 else None
    return Fitted(
        application=application,
        chosen=chosen,
        num_steps=num_steps,
        reasons=(*reasons, *said),
        length=rule,
    )


def _halved(application: TextTraining) -> list[TextTraining]:
    """The application with a half, a quarter and an eighth of its batch."""
    depth, batch_size = application.spec.depth, application.batch_size
    sizes = [batch_size // 2**number for number in range(1, _MOST_HALVINGS + 1)]
    return [application.with_shape(depth=depth, batch_size=size) for size in sizes if size]


def _network(
    application: TextTraining, step: float, timed: StepTime, per_window: float
) -> NetworkCosts:
    # A quarter of each window of the final test is context only.
    num_windows = 4 / 3 * len(application.held) / application.spec.context
    return NetworkCosts(
        name=f"depth {application.spec.depth} at {application.tokens_per_step:,} tokens a step",
        step=step,
        startup=timed.startup,
        evaluation=48 * per_window + _PREVIEW_SECONDS,
        test=num_windows * per_window,
        least_steps=max(LEAST_STEPS, _STEPS_OF_WHOLE_BATCHES),
        most_steps=application.steps_in(MAX_EPOCHS),
    )


def _window_seconds(application: TextTraining, plan: Plan) -> float:
    """Returns the seconds of the prediction of one window, from a batch timed here."""
    with (
        throwaway_settings(plan) as device,
        torch.inference_mode(),
        device.autocast(plan.precision),
    ):
        model = Decoder(application.spec.shape()).to(device.torch_device)
        batch = device.move(torch.zeros(8, application.spec.context, dtype=torch.int64))
        model(batch)
        mark = time.perf_counter()
        model(batch)
        device.synchronize()
        return (time.perf_counter() - mark) / len(batch)
