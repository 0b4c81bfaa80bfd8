"""An exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from volano.device.torch_private import foreach_lerp_, storage_key
from volano.training.distributed.data_parallel import local
from volano.training.memory.buffers import are_same, places_of, tensors_at


class Ema:
    """The average of weights: ``average <- decay * average + (1 - decay) * weights`` after each
    step (Polyak & Juditsky 1992).

    Early in the run the decay is held at ``(1 + t) / (10 + t)``, so that the initial weights are
    soon forgotten. Floating buffers (BatchNorm's statistics) are averaged likewise, others copied.
    A buffer that takes another shape begins again.

    Args:
        model: whose weights are averaged; a copy of it is kept in ``self.model``.
        decay: between 0 and 1.
        average: the copy, if it is sharded as the model is and cannot be made here.
    """

    def __init__(self, model: nn.Module, decay: float, average: nn.Module | None = None) -> None:
        self.model = (copy.deepcopy(model) if average is None else average).requires_grad_(False)
        self._decay, self._theirs = decay, model
        self._places = [places_of(self.model), places_of(model)]
        self._buffers: list[list[Any]] = []
        self._list()

    def _list(self) -> None:
        """Pairs the tensors that belong together; again if a forward pass has put another one in a
        buffer's place."""
        for (held, name), theirs in zip(self._places[0], tensors_at(self._places[1]), strict=True):
            own = held.get(name)
            if theirs is None or own is None or own.shape != theirs.shape:
                held[name] = None if theirs is None else theirs.detach().clone()
        self._buffers = [tensors_at(places) for places in self._places]
        own = {name: local(tensor) for name, tensor in self.model.state_dict().items()}
        theirs = {name: local(tensor) for name, tensor in self._theirs.state_dict().items()}
        # Tied tensors stand under each of their names; averaged once for each they would move too
        # fast.
        names = list({_place(t) if t.numel() else n: n for n, t in own.items()}.values())
        floating = [name for name in names if theirs[name].is_floating_point()]
        others = [name for name in names if not theirs[name].is_floating_point()]
        # state_dict() gives tensors that share memory with the modules, so the lists stay true
        # while training.
        self._averages = [own[name] for name in floating]
        self._weights = [theirs[name] for name in floating]
        self._copies = [(own[name], theirs[name]) for name in others]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after optimizer step ``step`` (from 0). Queues work on the device,
        waits for nothing."""
        if not all(
            are_same(tensors_at(places), known)
            for places, known in zip(self._places, self._buffers, strict=True)
        ):
            self._list()
        decay = min(self._decay, (1 + step) / (10 + step))
        foreach_lerp_(self._averages, self._weights, 1.0 - decay)
        for own, theirs in self._copies:
            own.copy_(theirs)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    # By storage and not by address: a tensor under a FakeTensorMode has none.
    return storage_key(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()
