"""The objective of a classifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.task import Loss

_LEAST_IMBALANCE = 5.0  # times as many examples of the commonest class as of the rarest


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The cross-entropy of ``(images, labels)``, with the accuracy as a metric.

    In training with label smoothing and class weights; in evaluation plain, so that figures compare
    between recipes.

    Attributes:
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016).
        class_weights: the weight of each class's examples, or None for equal ones.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    _on_device: dict[str, Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(self, model: nn.Module, batch: Any) -> Loss:
        """Implements ``Task.objective``; images uint8 [N, C, H, W], labels int64 [N]."""
        images, labels = batch
        logits = model(images).float()
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        if not model.training:
            total = F.cross_entropy(logits, labels, reduction="sum")
            return Loss(total=total, weight=len(labels), metrics={"accuracy": accuracy})
        smoothing, weights = self.label_smoothing, self._weights(labels.device)
        total = F.cross_entropy(
            logits, labels, weight=weights, label_smoothing=smoothing, reduction="sum"
        )
        weight = len(labels) if weights is None else weights[labels].sum()
        return Loss(total=total, weight=weight, metrics={"accuracy": accuracy})

    def _weights(self, device: torch.device) -> Tensor | None:
        if self.class_weights is None:
            return None
        if str(device) not in self._on_device:  # copied once, not at every step
            self._on_device[str(device)] = torch.tensor(self.class_weights, device=device)
        return self._on_device[str(device)]


def balanced_weights(labels: Tensor, num_classes: int) -> tuple[float, ...] | None:
    """Returns the weights ``N / (classes * count)`` (King & Zeng 2001) when the commonest class has
    more than five times the examples of the rarest, else None. Labels int64 [N]; every
    class occurs. Targets of other kinds, [N, outputs], are not weighted."""
    if labels.ndim > 1:
        return None
    counts = torch.bincount(labels, minlength=num_classes)
    if counts.max() <= _LEAST_IMBALANCE * counts.min():
        return None
    return tuple((len(labels) / (num_classes * counts)).tolist())
