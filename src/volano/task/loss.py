"""The result of an objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volano.errors import ObjectiveError

# The fields of a logged line, and the loss itself: a metric of such a name would take its place.
TAKEN_NAMES = frozenset(
    {"loss", "step", "epoch", "lr", "spike", "examples_per_second", "memory_bytes"}
    | {"data_wait_share"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """A loss that is not a mean over examples, or one with metrics.

    ``total / weight`` is the loss of the batch, so that micro-batches add up exactly:
    ``sum(total_i) / sum(weight_i)``.

    Attributes:
        total: scalar tensor, the *sum* of the loss over the units that ``weight`` counts (tokens,
            pixels, examples).
        weight: number of units that ``total`` sums over; a number or a scalar tensor without
            gradient.
        metrics: name -> scalar, each a *mean* over the same units; averaged over batches with
            ``weight``.
    """

    total: Tensor
    weight: Tensor | float
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)


def as_loss(result: Any, num_examples: int) -> Loss:
    """Returns an objective's result as a :class:`Loss`: a scalar tensor counts as the mean over
    ``num_examples``.

    Raises:
        ObjectiveError: the result is neither a floating scalar tensor nor a Loss with one, or
            weight and metrics of the Loss are no numbers.
    """
    if isinstance(result, Loss):
        _check_loss(result)
        weight = result.weight.reshape(()) if isinstance(result.weight, Tensor) else result.weight
        return Loss(total=_widened(result.total), weight=weight, metrics=result.metrics)
    _check_scalar(result, "the objective's result")
    return Loss(total=_widened(result) * num_examples, weight=float(num_examples))


def check_objective_result(result: Any) -> None:
    """Raises ObjectiveError unless ``result`` is a scalar floating tensor or a Loss whose total is
    one, and whose weight and metrics are numbers."""
    as_loss(result, 1)


def _check_loss(loss: Loss) -> None:
    _check_scalar(loss.total, "Loss.total")
    rule = "Loss.weight must be one number: how many units Loss.total sums over"
    _check_number(loss.weight, "weight", rule, "Reduce it with .sum()")
    if not isinstance(loss.metrics, Mapping):
        raise ObjectiveError(
            "Loss.metrics must be a mapping from names to numbers",
            got=type(loss.metrics).__name__,
            remedy="Leave it out if there are none",
        )
    for name, value in loss.metrics.items():
        if not isinstance(name, str) or name in TAKEN_NAMES:
            raise ObjectiveError(
                "A metric must have a name of its own, which is a text",
                got=f"metrics[{name!r}]",
                remedy=f"Rename it: {', '.join(sorted(TAKEN_NAMES))} are logged for every task",
            )
        _check_number(
            value, f"metrics[{name!r}]", "A metric must be one number per batch",
            "Reduce it, for example with .mean()",
        )  # fmt: skip


def _check_number(value: Any, name: str, rule: str, remedy: str) -> None:
    is_complex = isinstance(value, Tensor) and value.is_complex()
    if is_complex or not isinstance(value, Tensor | Real | np.bool_):
        kind = value.dtype if is_complex else f"type {type(value).__name__}"
        raise ObjectiveError(
            "The weight and the metrics of a Loss must be numbers or scalar tensors",
            got=f"{name} of {kind}",
        )
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ObjectiveError(rule, got=f"{name} of shape {tuple(value.shape)}", remedy=remedy)


def check_has_gradient(result: Any) -> None:
    """Raises ObjectiveError if nothing can be learned from an objective's result in a step."""
    loss = result.total if isinstance(result, Loss) else result
    if not loss.requires_grad:
        raise ObjectiveError(
            "A loss must depend on the model's parameters",
            got="one without a gradient",
            remedy="Leave out .detach(), .data, torch.no_grad() and frozen models from it",
        )


def check_finite(value: float, *, where: str) -> None:
    """Raises ObjectiveError if ``value`` is NaN or infinite; ``where`` says at which step."""
    if not math.isfinite(value):
        raise ObjectiveError(
            f"The loss must be a finite number {where}",
            got=value,
            remedy="Look at the first batch and at the model's output: inputs not scaled, a log "
            "of 0, a learning rate",
        )


def _widened(scalar: Tensor) -> Tensor:
    # A sum of 300 * 256 does not fit into fp16, and bf16 keeps three digits.
    scalar = scalar.reshape(())
    return scalar.float() if scalar.dtype in (torch.float16, torch.bfloat16) else scalar


def _check_scalar(value: Any, name: str) -> None:
    if not isinstance(value, Tensor):
        raise ObjectiveError(
            "An objective must return a scalar tensor (the mean over the batch's examples) or "
            "volano.Loss",
            got=f"{name} of type {type(value).__name__}",
            remedy="Return the tensor itself, without .item() or float()",
        )
    if value.numel() != 1:
        raise ObjectiveError(
            "An objective must return one number per batch",
            got=f"{name} of shape {tuple(value.shape)}",
            remedy="Reduce it with .mean(), or return volano.Loss(total=..., weight=...)",
        )
    if not torch.is_floating_point(value):
        raise ObjectiveError(
            "A loss must be a floating-point tensor",
            got=f"{name} of {value.dtype}",
            remedy="Compute it from the model's output",
        )


def metric_sums(losses: Sequence[Loss], name: str) -> tuple[Any, Any]:
    """Returns the weight of the parts that have a metric, and the sum of the metric times the
    weight over these; nothing is read from the device."""
    having = [loss for loss in losses if name in loss.metrics]
    return sum(loss.weight for loss in having), sum(_weighted(loss, name) for loss in having)


def mean_metrics(losses: Sequence[Loss]) -> dict[str, Tensor | float]:
    """Returns each metric's mean over the parts that have it, weighted by ``Loss.weight``; NaN if
    these weigh nothing."""
    means: dict[str, Tensor | float] = {}
    for name in dict.fromkeys(name for loss in losses for name in loss.metrics):
        weight, total = metric_sums(losses, name)
        means[name] = total / weight if isinstance(weight, Tensor) or weight else math.nan
    return means


def _weighted(loss: Loss, name: str) -> Tensor | float:
    # A mean over nothing is NaN, and counts nothing.
    value = loss.metrics[name] * loss.weight
    if isinstance(loss.weight, Tensor):
        return torch.where(loss.weight == 0, 0.0, value)
    return value if loss.weight else 0.0
