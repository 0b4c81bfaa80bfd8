"""The optimizers of K members: each member's own, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from volano.packing.member import MemberState
from volano.task import progress_at
from volano.training.optim.make import set_learning_rates


class StockOptimizer:
    """The members' own optimizers over views of the stacked parameters: bitwise the same as alone,
    for any class of torch's. A member leaves a pack with its optimizer's state as it would be
    alone."""

    def __init__(self, solos: Sequence[MemberState]) -> None:
        self._solos = solos
        self._parameters = [dict(solo.model.named_parameters()) for solo in solos]
        self._grouped = [
            [p for group in solo.optimizer.param_groups for p in group["params"]] for solo in solos
        ]

    def step(self, gradients: dict[str, Tensor], steps: Sequence[int]) -> Tensor | None:
        """Makes one update of every member.

        Args:
            gradients: name -> contiguous [K, ...]; other parameters are not changed.
            steps: number of steps that each member has made before.

        Returns:
            The norm of each member's gradient before it was clipped, [K]; None if no member clips.
        """
        norms: dict[int, Tensor] = {}
        slices = {name: gradient.unbind(0) for name, gradient in gradients.items()}
        for slot, (solo, step) in enumerate(zip(self._solos, steps, strict=True)):
            for name, parameter in self._parameters[slot].items():
                parameter.grad = slices[name][slot] if name in slices else None
            set_learning_rates(solo.optimizer, multiplier_at(solo, step))
            if solo.task.clip_norm is not None:
                norms[slot] = nn.utils.clip_grad_norm_(self._grouped[slot], solo.task.clip_norm)
            solo.optimizer.step()
            solo.optimizer.zero_grad(set_to_none=True)
        if not norms:
            return None
        none = torch.zeros_like(next(iter(norms.values())))
        return torch.stack([norms.get(slot, none) for slot in range(len(self._solos))])


def multiplier_at(solo: MemberState, step: int) -> float:
    """Returns the multiplier of a member's learning rates at a step."""
    return solo.task.schedule(progress_at(step, solo.task.num_steps))
