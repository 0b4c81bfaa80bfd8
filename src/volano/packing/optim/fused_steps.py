"""The fused updates of Adam and AdamW as torch's optimizers make them, from lists that are gathered
once instead of at each step: of a small member that gathering takes as long as the update."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    """The updates of members whose optimizers have made a step before.

    The optimizers' counters of steps become views of one tensor, which is raised in one operation.
    """

    def __init__(self, groups: list[list[_Group]], counters: Tensor) -> None:
        self._groups, self._counters = groups, counters

    @classmethod
    def of(cls, solos: Sequence[MemberState], names: Collection[str]) -> Self | None:
        """Returns the updates for gradients of these names; None if an optimizer is another, has
        hooks or other forms, or has not begun."""
        if not all(_is_fused(solo) for solo in solos):
            return None
        groups = [_groups(solo, names) for solo in solos]
        counters = [c for own in groups for group in own if group for c in group.state[2]]
        if not counters or not all(group for own in groups for group in own):
            return None
        whole = torch.stack(counters)
        views = iter(whole.unbind(0))
        for solo, own in zip(solos, groups, strict=True):
            for group in own:
                assert group is not None
                group.state[2][:] = [next(views) for _ in group.parameters]
                for parameter, counter in zip(group.parameters, group.state[2], strict=True):
                    solo.optimizer.state[parameter]["step"] = counter
        return cls([[group for group in own if group] for own in groups], whole)

    def count(self) -> None:
        """Counts a step of all members, which is then made by :meth:`update` for each."""
        self._counters.add_(1)

    def update(self, slices: Mapping[str, Sequence[Tensor]], slot: int) -> None:
        """Updates a member's parameters; ``slices`` are the gradients by name and member."""
        for group in self._groups[slot]:
            options = group.options
            beta1, beta2 = options["betas"]
            averages, squares, counters = group.state
            group.update(
                group.parameters, [slices[name][slot] for name in group.names], averages, squares,
                [], counters, lr=options["lr"], beta1=beta1, beta2=beta2,
                weight_decay=options["weight_decay"], eps=options["eps"], amsgrad=False,
                maximize=False, grad_scale=None, found_inf=None,
            )  # fmt: skip


def _is_fused(solo: MemberState) -> bool:
    is_adam = type(solo.optimizer) in (torch.optim.Adam, torch.optim.AdamW)
    return is_adam and solo.task.clip_norm is None and not has_step_hooks(solo.optimizer)


def _groups(solo: MemberState, with_gradient: Collection[str]) -> list[_Group | None]:
    """Returns a member's groups; None for one that is not updated by the fused kernel."""
    names: dict[Tensor, str] = {p: name for name, p in solo.model.named_parameters()}
    return [_group(solo.optimizer, g, names, with_gradient) for g in solo.optimizer.param_groups]


def _group(
    optimizer: torch.optim.Optimizer,
    options: dict[str, Any],
    names: Mapping[Tensor, str],
    with_gradient: Collection[str],
) -> _Group | None:
    numbers = (options["lr"], *options["betas"])
    is_other = any(options.get(name) for name in _OTHER_FORMS)
    if not options.get("fused") or is_other or any(isinstance(n, Tensor) for n in numbers):
        return None
    trained = [p for p in options["params"] if names.get(p) in with_gradient]
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
