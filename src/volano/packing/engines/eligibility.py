"""What a common program of members would leave out, seen before any step is made."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from volano.packing.member import MemberState
from volano.packing.program.program import NoOtherDraws
from volano.packing.refusal import NotPackable

# Those of torch.nn.Module that run with a forward or a backward pass.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def why_not_together(solos: Sequence[MemberState]) -> str | None:
    """Why members cannot be trained by one program, or None."""
    if nn.modules.module._has_any_global_hook():
        return "hooks on all modules"
    if solos and _draws(solos[0].optimizer):
        return "an optimizer that draws random numbers"
    for solo in solos:
        found = _hooked(solo.model)
        if found is not None:
            return f"hooks on {found}"
    return None


def _draws(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of an optimizer draws: alone it would go on in the order of the forward pass's draws. It is tried
    on a copy; torch's own draw nothing."""
    if type(optimizer).__module__.startswith(("torch.optim.", "volano.")):
        return False
    try:
        twin = copy.deepcopy(optimizer)
        for group in twin.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        with NoOtherDraws():
            twin.step()
    except NotPackable:
        return True
    except Exception:  # noqa: BLE001 - it shows again where the members train
        return False
    return False


def _hooked(model: nn.Module) -> str | None:
    # A program is traced once: Python that hooks run would not run at each step. Those of a backward pass hang on
    # modules and tensors that the program does not have.
    for name, module in model.named_modules():
        if any(getattr(module, kind, None) for kind in _HOOKS):
            return f"module {name!r}" if name else "the model"
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return f"parameter {name!r}"
    return None
