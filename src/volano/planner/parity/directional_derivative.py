"""Checks that a step's gradient belongs to the loss that the step reports: a finite difference
along the gradient.

Both come from the plan as it runs, with its own random numbers, from one seed. A backward pass that
draws dropout again shows at once (0.32 instead of 1.00 if ``torch.compile`` recomputes it,
pytorch#190758). A comparison with another program cannot tell this from other draws.
"""

from __future__ import annotations

import math

import torch

from volano.plan import Plan
from volano.planner.parity.probe_batch import ProbeBatch
from volano.planner.parity.reference import first_gradient, restore, weights_of
from volano.training import Session

# Relative changes of the loss at which the slope is taken: large enough for the rounding of a loss
# that is computed in the type (about 1e-7 and 1e-3), small enough for its curvature, of which a
# central difference leaves the cube.
_CHANGES = {
    "fp32": (3e-3, 3e-4, 3e-2),
    "tf32": (1e-2, 1e-1),
    "bf16": (1e-2, 3e-2, 1e-1),
    "fp16": (1e-2, 3e-2, 1e-1),
}
_NEAR_ENOUGH = 0.01


def slope_ratio(probe_batch: ProbeBatch, plan: Plan) -> float:
    """Returns the change of the loss along the gradient, over the change that the gradient
    predicts; 1 for a right gradient.

    It tries several distances and takes the result nearest to 1: rounding or curvature may spoil
    one of them, a wrong gradient shows at all of them.
    """
    session = Session(probe_batch.task, plan)
    start = weights_of(session)
    gradient, _ = first_gradient(session, probe_batch)
    norm = math.sqrt(
        math.fsum(
            float(g.cpu().double().square().sum())
            for g in gradient.gradients.values()
            if g is not None
        )
    )
    if not norm or not math.isfinite(norm):
        return 1.0 if norm == 0 else math.nan
    direction = {name: g.to_dense() / norm if g.is_sparse else g / norm
                 for name, g in gradient.gradients.items() if g is not None}  # fmt: skip

    def loss_at(distance: float) -> float:
        restore(session, start)
        with torch.no_grad():
            for name, parameter in session.model.named_parameters():
                if name in direction:
                    parameter.add_(direction[name], alpha=distance)
        return first_gradient(session, probe_batch)[0].loss

    best = math.nan
    for change in _CHANGES[plan.precision]:
        distance = change * max(abs(gradient.loss), 1e-6) / norm
        ratio = (loss_at(distance) - loss_at(-distance)) / (2 * distance * norm)
        if not abs(ratio - 1) >= abs(best - 1):
            best = ratio
        if abs(best - 1) <= _NEAR_ENOUGH:
            break
    return best
