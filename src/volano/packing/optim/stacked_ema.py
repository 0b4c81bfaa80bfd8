"""The exponential moving averages of K members' weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from volano.packing.program.stack import Stack


class StackedEma:
    """What :class:`volano.training.optim.ema.Ema` does, for each member with its own decay and its own step.

    Args:
        averages: the stack of the members' averages.
        weights: that of their models.
        decays: one for each member.
        names: of what is averaged: all that is in a ``state_dict``.
    """

    def __init__(self, averages: Stack, weights: Stack, decays: Sequence[float], names: Collection[str]) -> None:
        self._decays = decays
        own = {name: tensor for name, tensor in averages.all().items() if name in names}
        theirs = weights.all()
        self._floating = [(own[name], theirs[name]) for name in own if theirs[name].is_floating_point()]
        self._others = [(own[name], theirs[name]) for name in own if not theirs[name].is_floating_point()]

    @torch.no_grad()
    def update(self, steps: Sequence[int]) -> None:
        """Takes in the weights after the step that each member has just made, counted from 0."""
        shares = [1.0 - min(d, (1 + step) / (10 + step)) for d, step in zip(self._decays, steps, strict=True)]
        weights: dict[torch.dtype, Tensor] = {}
        for own, theirs in self._floating:
            if own.dtype not in weights:
                weights[own.dtype] = torch.tensor(shares, dtype=own.dtype).to(own.device, non_blocking=True)
            own.detach().lerp_(theirs.detach(), weights[own.dtype].view(-1, *[1] * (own.dim() - 1)))
        for own, theirs in self._others:
            own.copy_(theirs)
