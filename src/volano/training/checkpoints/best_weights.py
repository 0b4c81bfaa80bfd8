"""The weights of the best evaluation so far, and when a run has come to its end without another."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from volano.training.checkpoints.host_copy import HostCopies

_LOSS = "loss"


class BestWeights:
    """The weights with the smallest validation loss, copied to the host. All of it is part of a
    checkpoint, so that a resumed run keeps, and ends with, what an uninterrupted one does.

    Args:
        patience: evaluations without a smaller loss after which nothing more is expected; None:
            never.
    """

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._copies = HostCopies()
        self._weights: dict[str, Any] = {}
        self.step, self.metrics = 0, dict[str, float]()
        self._num_since = 0

    def look(self, step: int, metrics: dict[str, float], model: nn.Module) -> None:
        """Takes in an evaluation; a loss that is no number is never the best."""
        best, loss = self.metrics.get(_LOSS, math.inf), metrics[_LOSS]
        self._num_since += 1
        if loss < best or not self._weights:
            self._weights = self._copies.of(model.state_dict())
            self.step, self.metrics, self._num_since = step, dict(metrics), 0
            if math.isnan(loss):
                self.metrics[_LOSS] = math.inf

    @property
    def has_waited(self) -> bool:
        """Says whether the patience is at its end."""
        return self._patience is not None and self._num_since >= self._patience

    def put_into(self, model: nn.Module) -> None:
        """Gives a model the best weights, if there was an evaluation."""
        if self._weights:
            model.load_state_dict(self._weights)

    def in_words(self) -> str:
        """Returns what is kept, in words."""
        return f"kept: the weights of step {self.step:,}, valid loss {self.metrics[_LOSS]:.4g}"

    def state_dict(self) -> dict[str, Any]:
        """Returns all of it, as tensors and plain values."""
        return {
            "weights": self._weights,
            "step": self.step,
            "metrics": self.metrics,
            "num_since": self._num_since,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._weights, self.step = self._copies.of(state["weights"]), state["step"]
        self.metrics, self._num_since = dict(state["metrics"]), state["num_since"]
