"""Checks whether members of a pack come to the same results as alone, but for rounding.

How far rounding takes two trainings apart is measured, not guessed: a member is trained alone a
second time from weights that begin one unit of the precision away. An engine is compared with the
first steps of a member alone, tensor by tensor; for whole trainings see
:mod:`volano.packing.replay`."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from volano.data import Feed
from volano.device import Device
from volano.packing.engines.engine import Engine
from volano.packing.engines.sequential import Sequential
from volano.packing.member import Member, MemberState
from volano.packing.pack_feed import PackBatch
from volano.packing.refusal import NotPackable
from volano.plan import Plan
from volano.training import evaluate

# Twice the unit roundoff of each precision's arithmetic: 24, 11 and 8 bits of significand.
UNIT_OF_PRECISION = {"fp32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7}
_SEED_OF_SHAKING = 0

WARM_STEPS = 2  # they make programs and warm caches
# Relative difference of losses, of movements and of evaluations that rounding explains in the first
# steps; bf16 keeps three digits. Movements observed: 6e-7 in fp32 and 2e-2 in bf16, but for tensors
# that move by rounding.
_MOST_DIFFERENCE = {"fp32": 2e-3, "tf32": 2e-2, "bf16": 5e-2}
# Some tensors move by rounding more than by anything else: the bias of keys, a bias before a
# BatchNorm, Muon's result for small singular values in bf16. One sample of rounding shows how much;
# an engine's rounding may be so many times that. Observed for tensors that the difference above
# does not explain: 2.4.
_MOST_DRAWS = 5.0
# Another algorithm rounds more than another sample does: gradients of a compiled convolution,
# summed over 100,000 places, differed by 1.5e-5 of the largest ones although the true gradient is
# zero. A share of the largest movement of a tensor of its kind, per element.
_MOST_OF_LARGEST = {"fp32": 1e-4, "tf32": 1e-3, "bf16": 1e-2}


class MemberAlone:
    """A few steps of a member alone, with which engines are compared.

    Args:
        member: the member as it stands; it is not changed.
        batches: the batches of the steps, for this member alone.
        plan, device: plan and device of the training.

    Attributes:
        seconds: seconds of the shortest step but the first.
    """

    def __init__(
        self, member: Member, batches: Sequence[PackBatch], plan: Plan, device: Device
    ) -> None:
        self._member, self._batches, self._plan, self._device = member, batches, plan, device
        self._limit = _MOST_DIFFERENCE[plan.precision]
        self._solo = MemberState(member.with_private_code(), plan, device)
        self._engine = Sequential([self._solo], plan, device)
        rows, self.seconds = timed_steps(self._engine, device, batches)
        self._losses = [row[0].item() for row in rows]

    def seconds_of_next(self, batches: Generator[PackBatch, None, None]) -> float:
        """Returns the seconds of a typical further step, timed as a pack's training is: the mean of
        steps in a row with their feeding, waiting for the device only at the end. Nothing can be
        compared afterwards."""
        count = 0
        with contextlib.closing(batches):
            self._device.synchronize()
            start = time.perf_counter()
            for batch in batches:
                self._engine.step(batch)
                count += 1
            self._device.synchronize()
        return (time.perf_counter() - start) / count

    def check_losses(self, losses: Sequence[float]) -> None:
        """Compares another engine's losses, of as many steps or fewer, with those alone.

        Raises:
            NotPackable: the losses differ.
        """
        for step, (got, value) in enumerate(zip(losses, self._losses, strict=False)):
            if not self._is_close(got, value):
                raise NotPackable(
                    f"the loss of member {self._solo.number} at step {step} is {got:.6g} and "
                    f"alone {value:.6g}"
                )

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Compares the member's state, after all the steps under another engine, with the state
        alone: each tensor by its distance relative to its movement, whatever the learning rate.
        Momenta and averages of gradients are among the tensors, so that a wrong gradient shows even
        if the weights have hardly moved.

        Raises:
            NotPackable: the state differs.
        """
        if any(math.isnan(loss) for loss in self._losses):
            return  # alone it has ended
        got, (end, ways, roundings) = _tensors(state), self._measured
        if got.keys() != end.keys():
            name = min(got.keys() ^ end.keys())
            raise NotPackable(
                f"member {self._solo.number} has {name} {'not ' * (name not in got)}as alone"
            )
        for name, way in ways.items():
            distance = _norm(_difference(got[name], end[name]))
            # Written values are rounded at each step.
            is_rounded = end[name].is_floating_point() or end[name].is_complex()
            written = (
                len(self._losses) * torch.finfo(end[name].dtype).eps * _norm(end[name])
                if is_rounded
                else 0.0
            )
            allowed = self._limit * way + roundings[name] + written
            if math.isfinite(allowed) and not distance <= allowed:
                raise NotPackable(
                    f"{name} of member {self._solo.number} is {distance:.2g} from where it is "
                    "alone, "
                    f"on a way of {way:.2g} in {len(self._losses)} steps"
                )

    def check_evaluation(self, metrics: Mapping[str, float], data: Any, feed: Feed) -> None:
        """Compares an evaluation by an engine, after all the steps, with that of the member alone.

        Raises:
            NotPackable: the evaluation differs.
        """
        model, precision = self._solo.kept_model, self._plan.precision
        for name, value in evaluate(
            self._solo.task, model, data, feed, self._device, precision=precision
        ).items():
            got = metrics.get(name, math.inf)
            if not self._is_close(got, value):
                raise NotPackable(
                    f"{name} of member {self._solo.number} is {got:.6g} and alone {value:.6g}"
                )

    @property
    def num_steps(self) -> int:
        """The number of steps that were made."""
        return len(self._losses)

    @functools.cached_property
    def _measured(self) -> tuple[dict[str, Tensor], dict[str, float], dict[str, float]]:
        """Returns the tensors after the steps, how much each has moved, and how much rounding may
        have moved it."""
        other = MemberState(self._member.with_private_code(), self._plan, self._device)
        start, end = _tensors(other.state()), _tensors(self._solo.state())
        for model in (other.model, other.kept_model) if other.ema else (other.model,):
            shake_weights(model, UNIT_OF_PRECISION[self._plan.precision])
        shaken = _tensors(other.state())
        timed_steps(Sequential([other], self._plan, self._device), self._device, self._batches)
        moved, otherwise = _moved(start, end), _moved(shaken, _tensors(other.state()))
        ways = {name: _norm(way) for name, way in moved.items()}
        least = self._least_differences(moved, ways)
        draws = {name: _norm(_difference(otherwise[name], way)) for name, way in moved.items()}
        return end, ways, {name: _MOST_DRAWS * draw + least[name] for name, draw in draws.items()}

    def _least_differences(
        self, moved: Mapping[str, Tensor], ways: Mapping[str, float]
    ) -> dict[str, float]:
        parameters = {name for name, _ in self._solo.model.named_parameters()}
        largest: dict[str, float] = {}
        for name, way in moved.items():
            kind, size = _kind(name, parameters), ways[name] / math.sqrt(max(1, way.numel()))
            largest[kind] = max(largest.get(kind, 0.0), size if math.isfinite(size) else 0.0)
        share = _MOST_OF_LARGEST[self._plan.precision]
        return {
            n: share * largest[_kind(n, parameters)] * math.sqrt(way.numel())
            for n, way in moved.items()
        }

    def _is_close(self, got: float, value: float) -> bool:
        if math.isnan(got) and math.isnan(value):
            return True
        return abs(got - value) <= self._limit * max(abs(value), 1e-3)


def timed_steps(
    engine: Engine, device: Device, batches: Sequence[PackBatch], *, hopeless: float = math.inf
) -> tuple[list[Tensor], float]:
    """Returns the losses of steps on copies of ``batches``, and the seconds of the shortest step
    but the first.

    An engine that is slower than ``hopeless`` once it is warm makes no further steps. One thread of
    a CPU is timed by what it computes: beside other processes, three steps say nothing else.
    """
    is_one_thread = device.is_cpu and torch.get_num_threads() == 1
    clock = time.process_time if is_one_thread else time.perf_counter
    rows: list[Tensor] = []
    shortest = math.inf
    for given in batches:
        batch = given.copy()  # the other engines are given the same batch
        device.synchronize()
        start = clock()
        rows.append(engine.step(batch))
        device.synchronize()
        if len(rows) > 1:
            shortest = min(shortest, clock() - start)
        if len(rows) > WARM_STEPS and shortest > hopeless:
            break
    return rows, shortest


def check_steps(
    engine: Engine, rows: Sequence[Tensor], references: Mapping[int, MemberAlone]
) -> None:
    """Compares an engine's first steps with members alone, by slot.

    Args:
        engine: the engine after the steps.
        rows: its losses, [K] for each step. If there are fewer steps than alone, its state is not
            compared.

    Raises:
        NotPackable: the results differ.
    """
    for slot, reference in references.items():
        reference.check_losses([row[slot].item() for row in rows])
    if all(len(rows) == reference.num_steps for reference in references.values()):
        for reference, state in zip(
            references.values(), engine.states(list(references)), strict=True
        ):
            reference.check_state(state)


def why_evaluated_alone(
    engine: Engine, references: Mapping[int, MemberAlone], data: Any, feed: Feed
) -> str | None:
    """Returns why an engine that has made the steps of ``references`` is not to evaluate members,
    or None."""
    try:
        rows = engine.evaluate_together(data, feed)
        for slot, reference in references.items():
            reference.check_evaluation(rows[slot], data, feed)
    except NotPackable as reason:  # the training keeps its engine
        return str(reason)
    return None


@torch.no_grad()
def shake_weights(model: nn.Module, amount: float) -> None:
    """Multiplies each weight by a number drawn from ``1 - amount`` to ``1 + amount``, the same at
    each call."""
    generator = torch.Generator().manual_seed(_SEED_OF_SHAKING)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            draws = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 2 - 1
            parameter.copy_((parameter.cpu().double() * (1 + amount * draws)).to(parameter))


def _kind(name: str, parameters: Collection[str]) -> str:
    """Returns the kind of a tensor of a state; tensors of one kind are about as large: parameters,
    buffers of one name, an optimizer's tensors of one name."""
    first, _, rest = name.partition(".")
    return first if rest in parameters else f"{first} {rest.rpartition('.')[2]}"


def _tensors(tree: Any, name: str = "") -> dict[str, Tensor]:
    """Returns the tensors of a member's state, by their path."""
    if isinstance(tree, Tensor):
        return {name: tree}
    if not isinstance(tree, Mapping):
        return {}
    return {
        path: t
        for key, part in tree.items()
        for path, t in _tensors(part, f"{name}.{key}".lstrip(".")).items()
    }


def _moved(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns how much each tensor has moved; tensors that an optimizer makes at its first step
    start from nothing."""
    return {
        name: _difference(tensor, start[name]) if name in start else _wide(tensor) for name,
        tensor in end.items()
    }  # fmt: skip


def _difference(one: Tensor, other: Tensor) -> Tensor:
    one, other = _wide(one), _wide(other)
    is_same = (one == other) | (one.isnan() & other.isnan())  # infinities, of a mask for example
    return torch.where(is_same, 0.0, one - other)


def _norm(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(_wide(tensor)).item()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
