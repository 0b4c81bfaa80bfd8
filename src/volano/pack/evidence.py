"""What gradients have left in a member: by which an engine shows that it trains as the member does alone.

Losses of a few steps show a wrong gradient only through the updates in between, and not at all where rates are small,
as in a warm-up. An optimizer's moments carry it whatever the rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from volano.pack.solo import Solo

# How far rounding takes the evidence of a parameter from that of a training alone in a few steps, as a share of its own
# size: some 1e-5 in fp32; bf16 keeps two to three digits of each product. A wrong gradient differs by its own size.
_MOST_OWN = {"fp32": 0.02, "tf32": 0.05, "bf16": 0.3}
# The same as a share of the largest parameter's: where the true gradient is nought (a key's bias, a bias before
# BatchNorm) all that is there is rounding.
_MOST_OF_LARGEST = {"fp32": 1e-4, "tf32": 1e-3, "bf16": 3e-2}


def evidence_of(solo: Solo, state: Mapping[str, Any], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For each parameter that its optimizer has, the first of the optimizer's tensors of its shape (a first moment, a
    momentum), or where there is none how far the parameter has moved; float64 on the host.

    Args:
        solo: the member, for the names.
        state: of the member after some steps, see :meth:`Solo.state`.
        start: its parameters before them, on the host.
    """
    names = {id(parameter): name for name, parameter in solo.model.named_parameters()}
    order = [names.get(id(p)) for group in solo.optimizer.param_groups for p in group["params"]]
    found: dict[str, Tensor] = {}
    for index, name in enumerate(order):
        if name is None:
            continue
        now = state["model"][name]
        kept = state["optimizer"]["state"].get(index, {}).values()
        moments = [value for value in kept if isinstance(value, Tensor) and value.dim() and value.shape == now.shape]
        found[name] = moments[0].double() if moments else now.double() - start[name].double()
    return found


def difference_of(packed: Mapping[str, Tensor], alone: Mapping[str, Tensor], precision: str) -> str | None:
    """In words, the first parameter whose evidence differs by more than rounding in ``precision`` explains; or None."""
    largest = max((_size(value) for value in alone.values()), default=0.0)
    for name, expected in alone.items():
        own, apart = _size(expected), _size(packed[name] - expected)
        limit = _MOST_OWN[precision] * own + _MOST_OF_LARGEST[precision] * largest
        if math.isfinite(own) and not apart <= limit:
            return f"the gradients of {name} differ by {apart / max(own, limit):.0%} from those alone"
    return None


def _size(value: Tensor) -> float:
    """Root mean square."""
    return value.square().mean().sqrt().item() if value.numel() else 0.0
