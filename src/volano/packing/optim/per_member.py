"""The optimizers of K members: each member's own, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from volano.device.library_choices import denormals_flushed
from volano.packing.member import MemberState
from volano.packing.optim.fused_steps import FusedSteps
from volano.task import progress_at
from volano.training.optim.make_optimizer import set_learning_rates

# name -> the gradient of each member
_Slices = Mapping[str, Sequence[Tensor]]


class StockOptimizer:
    """The members' own optimizers over views of the stacked parameters: bitwise the same as alone,
    for any class of torch's. A member leaves a pack with its optimizer's state as it would be
    alone."""

    def __init__(self, solos: Sequence[MemberState]) -> None:
        self._solos = solos
        # The names of the gradients for which fused steps were looked for, and those found.
        self._fused_for: frozenset[str] | None = None
        self._fused: FusedSteps | None = None
        self._parameters = [dict(solo.model.named_parameters()) for solo in solos]
        self._grouped = [
            [p for group in solo.optimizer.param_groups for p in group["params"]] for solo in solos
        ]
        self._is_on_cpu = all(p.is_cpu for own in self._grouped for p in own)

    def step(self, gradients: dict[str, Tensor], steps: Sequence[int]) -> Tensor | None:
        """Makes one update of every member.

        Args:
            gradients: name -> contiguous [K, ...]; other parameters are not changed.
            steps: number of steps that each member has made before.

        Returns:
            The norm of each member's gradient before it was clipped, [K]; None if no member clips.
        """
        # Averages of a unit that has died would make its updates three times as long. The
        # objective's own numbers stay as they are.
        with denormals_flushed() if self._is_on_cpu else contextlib.nullcontext():
            return self._step(gradients, steps)

    def _step(self, gradients: dict[str, Tensor], steps: Sequence[int]) -> Tensor | None:
        slices = {name: gradient.unbind(0) for name, gradient in gradients.items()}
        if self._fused is not None and self._fused_for == gradients.keys():
            with torch.no_grad():
                self._fused.count()
                for slot, (solo, step) in enumerate(zip(self._solos, steps, strict=True)):
                    set_learning_rates(solo.optimizer, multiplier_at(solo, step))
                    self._fused.update(slices, slot)
            return None
        norms = self._step_each(slices, steps)
        if self._fused_for != gradients.keys():  # after the first step of each optimizer
            self._fused_for = frozenset(gradients)
            self._fused = FusedSteps.of(self._solos, self._fused_for)
        return norms

    def _step_each(self, slices: _Slices, steps: Sequence[int]) -> Tensor | None:
        norms: dict[int, Tensor] = {}
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
    return solo.task.schedule(progress_at(step, solo.num_steps))
