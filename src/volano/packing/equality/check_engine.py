"""Whether an engine brings a member to where its first steps alone bring it, but for rounding."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from volano.data import Feed
from volano.device import Device
from volano.packing.engines.sequential import Sequential
from volano.packing.equality.replay import UNIT_OF_PRECISION, shake_weights
from volano.packing.feed import PackBatch
from volano.packing.member import Member
from volano.packing.member_state import MemberState
from volano.packing.refusal import NotPackable
from volano.plan import Plan
from volano.training import evaluate

# Relative difference of losses, of movements and of evaluations that rounding explains in the first steps; bf16 keeps
# three digits. Movements observed: 6e-7 in fp32 and 2e-2 in bf16, but for tensors that move by rounding.
_MOST_DIFFERENCE = {"fp32": 2e-3, "tf32": 2e-2, "bf16": 5e-2}
# Some tensors move by rounding more than by anything else: the bias of keys, a bias before a BatchNorm, what Muon makes
# of small singular values in bf16. One draw of rounding shows how much; an engine's may be so many times that. Observed
# where the difference above explains less: 2.4.
_MOST_DRAWS = 5.0
# Another algorithm rounds more than another draw does: gradients of a compiled convolution, summed over 100,000 places,
# were 1.5e-5 of the largest ones apart where the true one is nought. As a share of the largest way of a tensor of its
# kind, per element.
_MOST_OF_LARGEST = {"fp32": 1e-4, "tf32": 1e-3, "bf16": 1e-2}


class MembersAlone:
    """A member that has made a few steps alone, and what another arithmetic would have made of them.

    Args:
        member: as it stood before.
        solo: the member after the steps.
        losses: its own, of each step.
        batches: of the steps, for this member alone.
        plan, device: of the training.
    """

    def __init__(
        self,
        member: Member,
        solo: MemberState,
        losses: Sequence[float],
        batches: Sequence[PackBatch],
        plan: Plan,
        device: Device,
    ) -> None:
        self._losses, self._solo = losses, solo
        self._plan, self._device = plan, device
        self._limit = _MOST_DIFFERENCE[plan.precision]
        start, self._end = _tensors(MemberState(member, plan, device).state()), _tensors(solo.state())
        other = MemberState(member, plan, device)
        for model in (other.model, other.kept_model) if other.ema else (other.model,):
            shake_weights(model, UNIT_OF_PRECISION[plan.precision])
        shaken = _tensors(other.state())
        engine = Sequential([other], plan, device)
        for batch in batches:
            engine.step(batch.copy())
        moved, otherwise = _moved(start, self._end), _moved(shaken, _tensors(other.state()))
        self._way = {name: _norm(way) for name, way in moved.items()}
        self._rounding = {name: _norm(_difference(otherwise[name], way)) for name, way in moved.items()}
        self._least = self._least_differences(moved)

    def check_losses(self, losses: Sequence[float]) -> None:
        """Holds another engine's losses, of as many steps or fewer, against those alone.

        Raises:
            NotPackable: they are others.
        """
        for step, (got, value) in enumerate(zip(losses, self._losses, strict=False)):
            if not self._is_close(got, value):
                raise NotPackable(
                    f"the loss of member {self._solo.number} at step {step} is {got:.6g} and alone {value:.6g}"
                )

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Holds the member's state, after all the steps under another engine, against that alone: each tensor by its
        distance relative to the way that it has gone, whatever the learning rate. Momenta and averages of gradients
        are among them, so that a wrong gradient shows where the weights have hardly moved.

        Raises:
            NotPackable: it is another.
        """
        if any(math.isnan(loss) for loss in self._losses):
            return  # alone it has ended
        got = _tensors(state)
        if got.keys() != self._end.keys():
            name = min(got.keys() ^ self._end.keys())
            raise NotPackable(f"member {self._solo.number} has {name} {'not ' * (name not in got)}as alone")
        for name, end in self._end.items():
            distance, way = _norm(_difference(got[name], end)), self._way[name]
            # What is written is rounded at each step.
            written = len(self._losses) * torch.finfo(end.dtype).eps * _norm(end) if _is_rounded(end) else 0.0
            allowed = self._limit * way + _MOST_DRAWS * self._rounding[name] + self._least[name] + written
            if math.isfinite(allowed) and not distance <= allowed:
                raise NotPackable(
                    f"{name} of member {self._solo.number} is {distance:.2g} from where it is alone, "
                    f"on a way of {way:.2g} in {len(self._losses)} steps"
                )

    def check_evaluation(self, metrics: Mapping[str, float], data: Any, feed: Feed) -> None:
        """Holds an evaluation by an engine, after all the steps, against that of the member alone.

        Raises:
            NotPackable: it says something else.
        """
        model, precision = self._solo.kept_model, self._plan.precision
        for name, value in evaluate(self._solo.task, model, data, feed, self._device, precision=precision).items():
            got = metrics.get(name, math.inf)
            if not self._is_close(got, value):
                raise NotPackable(f"{name} of member {self._solo.number} is {got:.6g} and alone {value:.6g}")

    def _least_differences(self, moved: Mapping[str, Tensor]) -> dict[str, float]:
        parameters = {name for name, _ in self._solo.model.named_parameters()}
        largest: dict[str, float] = {}
        for name, way in moved.items():
            kind, size = _kind(name, parameters), self._way[name] / math.sqrt(max(1, way.numel()))
            largest[kind] = max(largest.get(kind, 0.0), size if math.isfinite(size) else 0.0)
        share = _MOST_OF_LARGEST[self._plan.precision]
        return {n: share * largest[_kind(n, parameters)] * math.sqrt(way.numel()) for n, way in moved.items()}

    def _is_close(self, got: float, value: float) -> bool:
        if math.isnan(got) and math.isnan(value):
            return True
        return abs(got - value) <= self._limit * max(abs(value), 1e-3)


def _kind(name: str, parameters: Collection[str]) -> str:
    """What is about as large as a tensor of a state: parameters, buffers of one name, what an optimizer keeps under
    one."""
    first, _, rest = name.partition(".")
    return first if rest in parameters else f"{first} {rest.rpartition('.')[2]}"


def _tensors(tree: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of a member's state, by their path."""
    if isinstance(tree, Tensor):
        return {name: tree}
    if not isinstance(tree, Mapping):
        return {}
    return {path: t for key, part in tree.items() for path, t in _tensors(part, f"{name}.{key}".lstrip(".")).items()}


def _moved(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By how much each has moved; what an optimizer makes at its first step starts from nothing."""
    return {
        name: _difference(tensor, start[name]) if name in start else _wide(tensor) for name, tensor in end.items()
    }  # fmt: skip


def _difference(one: Tensor, other: Tensor) -> Tensor:
    one, other = _wide(one), _wide(other)
    is_same = (one == other) | (one.isnan() & other.isnan())  # infinities of a mask say
    return torch.where(is_same, 0.0, one - other)


def _norm(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(_wide(tensor)).item()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _is_rounded(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
