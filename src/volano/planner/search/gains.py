"""The shares of a step that knobs with a start-up of their own may save: priors by the device, and
by what limits the step.

They decide what is tried; what a candidate really saves is timed.
"""

from __future__ import annotations

from volano.plan import Plan
from volano.planner.cost_model import CostModel

# The share of a step that torch.compile may save on a CPU: measured from -40 to 24 % (docs/log.md).
_ON_CPU = 0.2
# On an accelerator it saves bytes between products, and launches: what the cost model says of the
# step, within these bounds. Without a prediction, the middle of what published runs of networks
# with norms and activation functions gain (30 to 100 % more steps a second), and of those that are
# nothing but products.
_ON_ACCELERATOR, _LEAST, _MOST = 0.3, 0.05, 0.6
# A knob is tried if what it may save of the run is worth so many of its start-ups, because it often
# saves nothing.
_WORTH_STARTUPS = 2.0
# The share of the time of products and convolutions that other kernels for them may save, and of
# convolutions that other algorithms may. Assumed: no accelerator was measured.
_OF_PRODUCTS, _OF_CONVOLUTIONS = 0.1, 0.15
_PRODUCTS = ("matmul", "convolution")
# Start-ups of the plain compiler that timing kernels takes: each product has some twenty of them.
AUTOTUNE_STARTUPS = 4.0
# Seconds for timing the algorithms of a network's convolutions, three passes each. Assumed.
BENCHMARK_SECONDS = 3.0


def is_worth(saved_seconds: float, startup_seconds: float) -> bool:
    """Checks whether a knob is tried that may save so much of a run."""
    return saved_seconds >= _WORTH_STARTUPS * startup_seconds


def compile_gain(cost_model: CostModel, plan: Plan, *, is_cpu: bool) -> float:
    """Returns the share of a plan's eager step that compiling it may save."""
    if is_cpu:
        return _ON_CPU
    eager = cost_model.time(plan.pin(compile=False, prefix="computed"))
    compiled = cost_model.time(plan.pin(compile=True, prefix="computed"))
    if eager is None or compiled is None:
        return _ON_ACCELERATOR
    return min(_MOST, max(_LEAST, 1.0 - compiled.step / eager.step))


def autotune_gain(cost_model: CostModel, plan: Plan) -> float:
    """Returns the share of a compiled step that kernels which were timed may save."""
    return _OF_PRODUCTS * _share(cost_model, plan, _PRODUCTS)


def benchmark_gain(cost_model: CostModel, plan: Plan) -> float:
    """Returns the share of a step that algorithms of convolutions which were timed may save."""
    return _OF_CONVOLUTIONS * _share(cost_model, plan, ("convolution",))


def _share(cost_model: CostModel, plan: Plan, kinds: tuple[str, ...]) -> float:
    """Returns the predicted share of a step that operations of some kinds take; half of it, if
    nothing is predicted."""
    predicted = cost_model.time(plan)
    if predicted is None or not predicted.step:
        return 0.5
    return min(1.0, sum(predicted.kinds.get(kind, 0.0) for kind in kinds) / predicted.step)
