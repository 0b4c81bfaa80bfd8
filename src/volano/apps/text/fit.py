"""The depth, the batch, the plan and the number of steps of a language model that suit its time."""

from __future__ import annotations

import time

import torch

from volano.apps.application import Fitted, TimeLimit
from volano.apps.text.network import Decoder
from volano.apps.text.recipe import MAX_EPOCHS
from volano.apps.text.training import TextTraining, shaped
from volano.plan import Plan
from volano.training import throwaway_settings

# As for images, kept back: for writing, for the interpreter's end, and because shared machines slow
# down.
_RESERVE_SHARE, _RESERVE_SECONDS = 0.10, 2.0
# Steps are timed for this share of the minutes, at most so many seconds, once or twice.
_TIMING_SHARE, _TIMING_SECONDS = 0.015, 4.0
# Planning may cost a share of the time that it is given: so much of it is given for the probe, the
# rest for the shape that is trained.
_PROBE_SHARE = 0.3
# Of a plan's probe with torch.compile switched off: compiled steps were measured to take 0.7 of the
# time.
_COMPILED_SHARE = 0.7


def fit_into(application: TextTraining, limit: TimeLimit) -> Fitted:
    """Finds depth, batch, plan and number of steps, from steps timed here."""
    timing = min(_TIMING_SECONDS, _TIMING_SHARE * limit.seconds)
    place = limit.planning.place

    def seconds_left(evaluation: float) -> float:
        return max(
            0.0, limit.left() - evaluation - _RESERVE_SECONDS - _RESERVE_SHARE * limit.seconds
        )

    # The shape that the time allows depends on the speed, and so on the plan: a quick one for a
    # probe is close enough.
    depth = application.options.depth or application.spec.depth
    probe = shaped(application, place, flops=1.0, num_tokens=1e6, depth=depth)
    quick = limit.choose_plan(
        probe.task(1000),
        planning=limit.planning.without("compile", True),
        seconds=_PROBE_SHARE * limit.seconds,
    )
    eager = quick.plan.pin(compile=False)
    step = limit.measure_step(probe.task(1000), eager, timing).step
    step *= _COMPILED_SHARE if quick.plan.compile else 1.0
    tokens_per_second = probe.tokens_per_step / step
    flops = tokens_per_second * probe.spec.shape().flops_per_token * seconds_left(0.0)
    num_tokens = flops / probe.spec.shape().flops_per_token
    num_tokens = min(num_tokens, MAX_EPOCHS * len(application.train))
    application = shaped(application, place, flops=flops, num_tokens=num_tokens)
    chosen = limit.choose_plan(
        application.task(1000), seconds=max(1.0, (1 - _PROBE_SHARE) * seconds_left(0.0))
    )
    measured = limit.measure_step(application.task(1000), chosen.plan, timing)
    left = seconds_left(_evaluation_seconds(application, chosen.plan) + measured.startup)
    most = application.steps_in(MAX_EPOCHS)
    num_steps = max(1, min(most, int(left / measured.step)))
    length = (
        f"at most {MAX_EPOCHS:g} epochs" if num_steps == most else f"{limit.seconds / 60:g} min"
    )
    length = f"{measured.step * 1e3:.0f} ms a step, {length}" + (
        ", which is short" if num_steps == 1 else ""
    )
    reasons = application.reasons(num_steps, length)
    return Fitted(application=application, chosen=chosen, num_steps=num_steps, reasons=reasons)


def _evaluation_seconds(application: TextTraining, plan: Plan) -> float:
    """Returns the seconds of the final test, of the evaluations and of the previews, from one batch
    timed here."""
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
        per_window = (time.perf_counter() - mark) / len(batch)
    preview = 0.5  # sixty tokens at two to ten milliseconds
    num_test = 4 / 3 * len(application.held) / application.spec.context
    return per_window * (num_test + 8 * 48) + 8 * preview
