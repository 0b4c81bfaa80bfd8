"""The objective of a language model, and the random offsets of its windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.apps.text.tokenizer import SEPARATOR_ID
from volano.task import Loss


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """The cross-entropy in nats of each next token, with the bits per byte as a metric.

    In training a batch is ids int16 [B, context + 1] and every token but the first is predicted. In
    evaluation it is what ``scoring_windows`` makes: ids and the first target of each window that
    counts; separators, which stand for no bytes, do not count.

    Attributes:
        train_bytes_per_token: the bytes per token of the training text.
        valid_bytes_per_token: the bytes per token of exactly the targets that count in the
            validation set, so that the mean over its batches is its total bits over its total
            bytes.
    """

    train_bytes_per_token: float
    valid_bytes_per_token: float

    def __call__(self, model: nn.Module, batch: Any) -> Loss:
        """Implements ``Task.objective``."""
        if model.training:
            ids = batch.long()
            total = _cross_entropy(model, ids).sum()
            return self._loss(total, ids.shape[0] * (ids.shape[1] - 1), self.train_bytes_per_token)
        ids, counts = batch[0].long(), counted(*batch)
        total = (_cross_entropy(model, ids) * counts).sum()
        return self._loss(total, counts.sum(), self.valid_bytes_per_token)

    @staticmethod
    def _loss(total: Tensor, num_tokens: Tensor | int, bytes_per_token: float) -> Loss:
        bits = total.detach() / num_tokens / (math.log(2) * bytes_per_token)
        return Loss(total=total, weight=num_tokens, metrics={"bits_per_byte": bits})


def counted(ids: Tensor, first: Tensor) -> Tensor:
    """Returns which targets count, bool [B, context]: those from ``first`` on that are no
    separators (or filling)."""
    places = torch.arange(ids.shape[1] - 1, device=ids.device)
    return (places >= first[:, None]) & (ids[:, 1:] != SEPARATOR_ID)


def _cross_entropy(model: nn.Module, ids: Tensor) -> Tensor:
    """Returns the nats of each target, fp32 [B, T], of ids int64 [B, T + 1]."""
    logits = model(ids[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
        ids.shape[0], -1
    )


@dataclass(frozen=True, kw_only=True)
class RandomOffsets:
    """The ``augment`` for windows of twice the context: ``context + 1`` ids of each, from a random
    offset below ``context`` on. So an epoch sees the text cut at other places than the epoch
    before.

    Attributes:
        context: tokens that the model sees.
    """

    context: int

    def __call__(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Cuts ids int16 [B, 2 * context] to [B, context + 1]."""
        return self.of_part(ids, generator, 0, 1)

    def of_part(
        self, ids: Tensor, generator: torch.Generator, rank: int, world_size: int
    ) -> Tensor:
        """Cuts a rank's part of a batch as the whole would be; see ``Task.augment``."""
        offsets = torch.randint(
            self.context, (len(ids) * world_size, 1), generator=generator, device=generator.device
        )
        places = offsets[rank::world_size].to(ids.device) + torch.arange(
            self.context + 1, device=ids.device
        )
        return ids.gather(1, places)
