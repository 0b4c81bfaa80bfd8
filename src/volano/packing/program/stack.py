"""The tensors of K modules of one structure as tensors [K, ...], and the moving averages of such
modules."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn


class Stack:
    """The parameters and buffers of K modules, stacked along a first dimension.

    The modules stay whole: each of their tensors becomes a view of its slice. So everything done to
    a module (an optimizer of its own, ``load_state_dict``, a forward pass) is done to the stack,
    and the other way round. Tied tensors stay tied: they are stacked once, under their first name.

    Attributes:
        parameters: name -> leaf [K, ...] that requires a gradient.
        frozen: name -> [K, ...] of the parameters that do not.
        buffers: name -> [K, ...].
        reordered: name of a tensor that the modules had in another order of dimensions in memory
            (channels last), which stacking has undone; None if there is none.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        first = dict([*modules[0].named_parameters(), *modules[0].named_buffers()])
        self.reordered = next(
            (name for name, tensor in first.items() if not _is_in_order(tensor)), None
        )
        self.parameters = self._stacked(
            [dict(module.named_parameters()) for module in modules], trained=True
        )
        self.frozen = self._stacked(
            [dict(module.named_parameters()) for module in modules], trained=False
        )
        self.buffers = self._stacked([dict(module.named_buffers()) for module in modules])

    def all(self) -> dict[str, Tensor]:
        """Returns every tensor by name."""
        return {**self.parameters, **self.frozen, **self.buffers}

    @staticmethod
    def _stacked(
        owners: list[dict[str, Tensor]], *, trained: bool | None = None
    ) -> dict[str, Tensor]:
        stacked: dict[str, Tensor] = {}
        for name, first in owners[0].items():
            if trained is not None and first.requires_grad != trained:
                continue
            whole = torch.stack([owner[name].detach() for owner in owners]).contiguous()
            for slot, owner in enumerate(owners):
                owner[name].data = whole[slot]
            stacked[name] = whole.requires_grad_(bool(trained))
        return stacked


class StackedEma:
    """The moving averages of K members, as :class:`volano.training.optim.ema.Ema` does it, for each
    with its own decay and its own step.

    Args:
        averages: the stack of the members' averages.
        weights: the stack of their models.
        decays: one decay for each member.
        names: names of the averaged tensors: everything in a ``state_dict``.
    """

    def __init__(
        self, averages: Stack, weights: Stack, decays: Sequence[float], names: Collection[str]
    ) -> None:
        self._decays = decays
        own = {name: tensor for name, tensor in averages.all().items() if name in names}
        self._device = next((tensor.device for tensor in own.values()), None)
        theirs = weights.all()
        self._floating = [
            (own[name], theirs[name]) for name in own if theirs[name].is_floating_point()
        ]
        self._others = [
            (own[name], theirs[name]) for name in own if not theirs[name].is_floating_point()
        ]
        self._dtypes = list(dict.fromkeys(own.dtype for own, _ in self._floating))

    def shares(self, steps: Sequence[int]) -> list[Tensor]:
        """Returns the share of each member's weights in its average, [K] in each of their types,
        after the step that it makes now, counted from 0."""
        shares = [
            1.0 - min(d, (1 + step) / (10 + step))
            for d, step in zip(self._decays, steps, strict=True)
        ]
        return [
            torch.tensor(shares, dtype=dtype).to(self._device, non_blocking=True)
            for dtype in self._dtypes
        ]

    @torch.no_grad()
    def update(self, shares: Sequence[Tensor]) -> None:
        """Takes in the weights, by a result of :meth:`shares`."""
        of_type = dict(zip(self._dtypes, shares, strict=True))
        for own, theirs in self._floating:
            share = of_type[own.dtype].view(-1, *[1] * (own.dim() - 1))
            own.detach().lerp_(theirs.detach(), share)
        for own, theirs in self._others:
            own.copy_(theirs)


def _is_in_order(tensor: Tensor) -> bool:
    # The stride of a dimension of one element is arbitrary, but a convolution still derives its
    # output's layout from it.
    return (
        tensor.layout != torch.strided
        or tensor.stride() == torch.empty(tensor.shape, device="meta").stride()
    )
