"""The fused updates of Adam and AdamW as torch's optimizers make them, from lists that are gathered
once instead of at each step: of a small member that gathering takes as long as the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from volano.device.torch_private import fused_adam_, fused_adamw_, has_step_hooks
from volano.packing.member import MemberState

_OTHER_FORMS = ("amsgrad", "maximize", "capturable", "differentiable", "foreach")


@dataclass(frozen=True)
class _Group:
    """A group of parameters, in its optimizer's order, with what the optimizer keeps for each."""

    options: dict[str, Any]  # the optimizer's own, whose learning rate is set before each step
    update: Callable[..., None]
    names: tuple[str, ...]
    parameters: list[Tensor]
    state: tuple[list[Tensor], list[Tensor], list[Tensor]]  # exp_avg, exp_avg_sq, step


class FusedSteps:
    """The updates of one member whose optimizer has made a step before.

    Attributes:
        counters: the optimizer's counters of steps, which the caller raises before each update.
    """

    def __init__(self, groups: list[_Group]) -> None:
        self._groups = groups
        self.counters = [counter for group in groups for counter in group.state[2]]

    @classmethod
    def of(cls, solo: MemberState, gradients: Mapping[str, Tensor]) -> Self | None:
        """Returns the updates of a member for gradients of these names; None if its optimizer is
        another, has hooks or other forms, or has not begun."""
        optimizer = solo.optimizer
        if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
            return None
        if solo.task.clip_norm is not None or has_step_hooks(optimizer):
            return None
        names: dict[Tensor, str] = {p: name for name, p in solo.model.named_parameters()}
        groups = [_group(optimizer, group, names, gradients) for group in optimizer.param_groups]
        found = [group for group in groups if group is not None]
        return cls(found) if len(found) == len(groups) else None

    def update(self, gradients: Mapping[str, Tensor]) -> None:
        """Updates the member's parameters; ``gradients`` are its own, by name."""
        for group in self._groups:
            options = group.options
            beta1, beta2 = options["betas"]
            averages, squares, counters = group.state
            group.update(
                group.parameters, [gradients[name] for name in group.names], averages, squares,
                [], counters, lr=options["lr"], beta1=beta1, beta2=beta2,
                weight_decay=options["weight_decay"], eps=options["eps"], amsgrad=False,
                maximize=False, grad_scale=None, found_inf=None,
            )  # fmt: skip


def _group(
    optimizer: torch.optim.Optimizer,
    options: dict[str, Any],
    names: Mapping[Tensor, str],
    gradients: Mapping[str, Tensor],
) -> _Group | None:
    numbers = (options["lr"], *options["betas"])
    is_other = any(options.get(name) for name in _OTHER_FORMS)
    if not options.get("fused") or is_other or any(isinstance(n, Tensor) for n in numbers):
        return None
    trained = [p for p in options["params"] if names.get(p) in gradients]
    states = [optimizer.state.get(parameter, {}) for parameter in trained]
    kinds = {(parameter.dtype, parameter.device) for parameter in trained}
    if len(kinds) != 1 or not all("exp_avg_sq" in state for state in states):
        return None  # torch updates each kind apart
    exp_avg, exp_avg_sq, step = (
        [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
    )
    return _Group(
        options=options,
        update=fused_adamw_ if options["decoupled_weight_decay"] else fused_adam_,
        names=tuple(names[parameter] for parameter in trained),
        parameters=trained,
        state=(exp_avg, exp_avg_sq, step),
    )
