"""The update of SGD, Adam, AdamW and Muon for K members in one pass over all their parameters, each
with its own options.

Run operator by operator this is slower than torch's fused kernels where members are large, and
sooner where a kernel's launch takes longer than its work. Compiled together with the step to which
it belongs, it is several times as fast as K of them (``benchmarks/pack_speed.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volano.device.torch_private import has_step_hooks
from volano.packing.member import MemberState
from volano.packing.optim.formulas import FORMULAS, Formula, Vector
from volano.packing.optim.per_member import multiplier_at
from volano.training import MuonAdamW
from volano.training.optim.make_optimizer import set_learning_rates

_CLASSES = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, MuonAdamW)
_FLAGS = ("amsgrad", "maximize", "capturable", "differentiable")
_OPTIONS = ("lr", "weight_decay", "momentum", "dampening", "beta1", "beta2", "eps")
_CLIP_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def why_not_flat(solos: Sequence[MemberState]) -> str | None:
    """Returns why the members' optimizers cannot be updated in one pass, or None."""
    first = solos[0].optimizer
    kind = type(first).__name__
    if type(first) not in _CLASSES:
        return f"{kind} has no form for many members"
    partition, fixed = _partition(solos[0]), _fixed(solos[0])
    for solo in solos:
        if type(solo.optimizer) is not type(first) or _partition(solo) != partition:
            return "the members' parameters are grouped differently"
        if _fixed(solo) != fixed:
            return f"{kind} with options that shape the update differently"
        # More than the step of its class: hooks run, or the object has another method.
        if has_step_hooks(solo.optimizer) or "step" in vars(solo.optimizer):
            return f"{kind} with hooks on its step"
        for group in solo.optimizer.param_groups:
            flags = [name for name in _FLAGS if group.get(name)]
            if type(first) is torch.optim.Adam and group.get("decoupled_weight_decay"):
                flags.append("decoupled_weight_decay")
            if flags:
                return f"{kind} with {flags[0]}"
            if any(isinstance(value, Tensor) for name, value in group.items() if name != "params"):
                return f"{kind} with a tensor for an option"
    return None


class StackedUpdate:
    """The update as a function of tensors.

    Args:
        solos: the members; their own optimizers' state is stacked; after :meth:`settle` it consists
            of views of the stack.
        parameters: name -> [K, ...].

    Attributes:
        state: name -> the tensors [K, ...] that the update keeps for a parameter.
        updated: names of the parameters that have had a gradient, here or before. A caller of a
            program that was made from an update of other members adds the names that are updated
            there.
    """

    def __init__(self, solos: Sequence[MemberState], parameters: dict[str, Tensor]) -> None:
        self._solos = solos
        self._partition, self._fixed = _partition(solos[0]), _fixed(solos[0])
        self._formulas = [_formula(solos[0], index) for index in range(len(self._partition))]
        self._group_of = {
            name: index for index, group in enumerate(self._partition) for name in group
        }
        self._clips = [solo.task.clip_norm for solo in solos]
        like = next(iter(parameters.values()))
        self._dtype, self._device = like.dtype, like.device
        self.updated: set[str] = set()
        self.state = {
            n: self._stacked(n, tensor) for n, tensor in parameters.items() if n in self._group_of
        }
        self._options = [
            {
                option: np.array([_option(solo, index, option) for solo in solos])
                for option in _OPTIONS
            }
            for index in range(len(self._partition))
        ]
        # The places of each group's rows among the vectors; the limits of norms come last. Filled
        # in by ``vectors``.
        self._places: list[dict[str, int]] = []
        self.vectors([solo.step for solo in solos])

    @functools.cached_property
    def signature(self) -> tuple[object, ...]:
        """The part of the function that is not in its tensors; it distinguishes compiled
        programs."""
        clips = any(clip is not None for clip in self._clips)
        return (
            type(self._solos[0].optimizer).__name__,
            str(self._partition),
            str(self._fixed),
            clips,
        )

    def vectors(self, steps: Sequence[int]) -> Tensor:
        """Returns the numbers that differ between members in a step, [rows, K]; ``steps`` are those
        that each has made before."""
        multipliers = np.array(
            [multiplier_at(solo, step) for solo, step in zip(self._solos, steps, strict=True)]
        )
        done = np.asarray(steps, dtype=np.float64)
        table: list[Vector] = []
        self._places = []
        for formula, options in zip(self._formulas, self._options, strict=True):
            rows = formula.rows(options, options["lr"] * multipliers, done)
            self._places.append({name: len(table) + place for place, name in enumerate(rows)})
            table += rows.values()
        table.append(np.array([np.inf if clip is None else clip for clip in self._clips]))
        # One copy to the device for all numbers of a step.
        return torch.from_numpy(np.stack(table)).to(self._dtype).to(self._device, non_blocking=True)

    def __call__(
        self, parameters: dict[str, Tensor], gradients: dict[str, Tensor],
        state: dict[str, tuple[Tensor, ...]], vectors: Tensor,
    ) -> Tensor | None:  # fmt: skip
        """Updates parameters and state in place; nothing is summed over members. Returns the norms
        of the gradients if any member clips, 0 for a member that does not."""
        norms = None
        with torch.no_grad():
            # Only the optimizer's own parameters: the others count in no norm, as in a training
            # alone.
            gradients = {
                name: gradient for name, gradient in gradients.items() if name in self._group_of
            }
            if any(clip is not None for clip in self._clips):
                norms, gradients = _clipped(gradients, vectors[-1])
            self.updated.update(gradients)
            for name, gradient in gradients.items():
                self._update(name, parameters[name].detach(), gradient, state[name], vectors)
        return norms

    def _update(
        self, name: str, parameter: Tensor, gradient: Tensor, state: tuple[Tensor, ...],
        vectors: Tensor,
    ) -> None:  # fmt: skip
        index = self._group_of[name]
        # [K] -> [K, 1, ...]: each member's number meets only its own slice.
        shape = (-1, *[1] * (gradient.dim() - 1))
        rows = {row: vectors[place].view(shape) for row, place in self._places[index].items()}
        new, kept = self._formulas[index].update(
            parameter, gradient, state, rows, self._fixed[index]
        )
        parameter.copy_(new)
        for old, value in zip(state, kept, strict=True):
            old.copy_(value)

    def settle(self, steps: Sequence[int]) -> None:
        """Puts state, counters and learning rates into the members' own optimizers, as after
        ``steps`` steps of each: the same as they would keep alone, and nothing for a parameter
        without a gradient."""
        for slot, (solo, step) in enumerate(zip(self._solos, steps, strict=True)):
            if step == 0:
                continue
            set_learning_rates(solo.optimizer, multiplier_at(solo, step - 1))
            parameters = dict(solo.model.named_parameters())
            # In the parameters' order.
            for name in [name for name in self.state if name in self.updated]:
                self._settle(name, slot, parameters[name], step)

    def _settle(self, name: str, slot: int, parameter: Tensor, step: int) -> None:
        optimizer, index = self._solos[slot].optimizer, self._group_of[name]
        group, kept = optimizer.param_groups[index], self._formulas[index].state
        if type(optimizer) is torch.optim.SGD and group["momentum"] == 0:
            return  # it keeps no buffer
        state = optimizer.state[parameter]
        state.update(
            {part: whole[slot] for part, whole in zip(kept, self.state[name], strict=True)}
        )
        if "exp_avg" in kept:
            # Fused optimizers keep the counter on the parameter's device, others on the host.
            device = parameter.device if group.get("fused") else None
            state["step"] = torch.tensor(float(step), device=device)

    def _stacked(self, name: str, parameter: Tensor) -> tuple[Tensor, ...]:
        stacked: list[Tensor] = []
        for kept in self._formulas[self._group_of[name]].state:
            whole = torch.zeros_like(parameter, requires_grad=False)
            for slot, solo in enumerate(self._solos):
                state = solo.optimizer.state.get(dict(solo.model.named_parameters())[name], {})
                if isinstance(state.get(kept), Tensor):
                    whole[slot].copy_(state[kept])
                    self.updated.add(name)
            stacked.append(whole)
        return tuple(stacked)


def _clipped(gradients: dict[str, Tensor], limits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Scales each member's gradients to its own limit by its own norm, as
    torch.nn.utils.clip_grad_norm_ does. Returns the norms and the gradients."""
    # Of each tensor, then over the tensors: the order in which torch rounds the norm.
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(
        dim=0
    )
    clips = limits.isfinite()  # a member without clipping has no limit, and its norm is not needed
    norms = torch.where(clips, norms, 0.0)
    factors = torch.where(clips, (limits / (norms + _CLIP_EPS)).clamp(max=1.0), 1.0)
    return norms, {
        name: g * factors.view(-1, *[1] * (g.dim() - 1)) for name, g in gradients.items()
    }


def _partition(solo: MemberState) -> list[list[str]]:
    """Returns the names of the parameters in each of the optimizer's groups."""
    names = {id(parameter): name for name, parameter in solo.model.named_parameters()}
    return [
        [names.get(id(p), "?") for p in group["params"]] for group in solo.optimizer.param_groups
    ]


def _formula(solo: MemberState, index: int) -> Formula:
    algorithm = solo.optimizer.param_groups[index].get("algorithm")
    if algorithm is None:
        return FORMULAS[type(solo.optimizer).__name__]
    return FORMULAS["muon" if algorithm == "muon" else "AdamW"]


def _fixed(solo: MemberState) -> list[dict[str, Any]]:
    """Returns for each group the options that must be the same for all members."""
    groups = solo.optimizer.param_groups
    return [
        {name: group.get(name) for name in _formula(solo, index).fixed}
        for index, group in enumerate(groups)
    ]


def _option(solo: MemberState, index: int, name: str) -> float:
    group = solo.optimizer.param_groups[index]
    if name in ("beta1", "beta2"):
        return float(group["betas"][name == "beta2"]) if "betas" in group else 0.0
    return float(group["initial_lr"] if name == "lr" else group.get(name, 0.0))
