"""Finds the frozen part of a model by looking at one pass of the objective."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.device.torch_private import AnyTrackingNorm, tree_flatten, tree_unflatten, version_of
from volano.training.prefix.frozen_value import FrozenValue, Source, marked
from volano.training.prefix.units import (
    CallInputs,
    UnitPass,
    frozen_units,
    has_parameters,
    is_plain_result,
)

# Each look opens modules that were not called, or are not the same each time: at most one level of
# the tree a look.
_MOST_LOOKS = 12


@dataclass(frozen=True)
class Boundary:
    """The frozen part of a model.

    Attributes:
        units: its modules by name.
        calls: the calls of a pass in order: name of the module, and number of its region or None if
            it is computed each time. A region is a set of calls of which the first takes tensors
            from outside, and the others take what follows from its results alone.
        used: for each region, the outputs that something else uses.
    """

    units: Mapping[str, nn.Module]
    calls: tuple[tuple[str, int | None], ...]
    used: tuple[frozenset[Source], ...]

    def without(self, regions: Collection[int]) -> Boundary | None:
        """Returns the frozen part without some regions; None if nothing is left."""
        left = [number for number in range(len(self.used)) if number not in regions]
        if not left:
            return None
        new = {number: place for place, number in enumerate(left)}
        calls = tuple((name, None if r is None else new.get(r)) for name, r in self.calls)
        return Boundary(self.units, calls, tuple(self.used[number] for number in left))

    @property
    def kept_units(self) -> dict[str, nn.Module]:
        """The modules of the regions."""
        return {name: self.units[name] for name, region in self.calls if region is not None}


def find_boundary(
    model: nn.Module, objective: Callable[[], Any], count: int, device: Device
) -> Boundary | str:
    """Returns the frozen part of a model as a pass over ``count`` examples shows it, or why there
    is none.

    Args:
        model: the model in the mode of the pass.
        objective: makes the pass; called several times.
        count: examples of its batch.
    """
    opened: set[str] = set()
    reasons: dict[str, str] = {}
    for _ in range(_MOST_LOOKS):
        units = frozen_units(model, opened)
        if not any(map(has_parameters, units.values())):
            return _why_nothing(model, reasons)
        look = ObservePass(units, model, count, device)
        look.run(objective)
        called = {call.name for call in look.calls}
        reasons |= look.unsteady
        idle = {n for n in units if n not in called and any(True for _ in units[n].children())}
        closed = (look.unsteady.keys() | idle) - opened
        if not closed:
            return look.boundary() or _why_nothing(model, reasons)
        opened |= closed
    return "its modules call one another in too many ways"


def _why_nothing(model: nn.Module, reasons: Mapping[str, str]) -> str:
    if reasons:
        name, reason = next(iter(reasons.items()))
        return f"{name} {reason}"
    if all(parameter.requires_grad for parameter in model.parameters()):
        return "no parameter is frozen"
    return "no frozen module gets its input from the batch alone and behaves the same each time"


@dataclass
class _Region:
    calls: list[int] = field(default_factory=list)
    used: set[Source] = field(default_factory=set)


@dataclass
class _Call:
    name: str
    region: _Region | None = None


class ObservePass(UnitPass):
    """A pass that computes everything and sees what is frozen.

    Attributes:
        calls: the calls of frozen modules in order.
        unsteady: name of a module -> why it is not the same each time.
    """

    def __init__(
        self, units: Mapping[str, nn.Module], model: nn.Module, count: int, device: Device
    ) -> None:
        super().__init__(units, constants_of(model), count)
        self._device = device
        self._states = device.generator_states()
        self.calls: list[_Call] = []
        self.unsteady: dict[str, str] = {}

    def has_drawn(self) -> bool:
        before, self._states = self._states, self._device.generator_states()
        is_same = torch.equal(before[0], self._states[0])
        own = before[3] is None or torch.equal(before[3], self._states[3])
        return not (is_same and own) or self._device.has_drawn_elsewhere(before)

    def note_use(self, values: list[FrozenValue], name: str) -> None:  # noqa: ARG002
        for value in values:
            assert isinstance(value.region, _Region)
            value.region.used |= value.sources

    def call(self, name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        number, inputs = len(self.calls), CallInputs(args, kwargs)
        made = _Call(name)
        self.calls.append(made)
        regions = {id(value.region) for value in inputs.frozen}
        continues = len(regions) == 1 and len(inputs.frozen) == len(inputs.tensors)
        if not continues and inputs.frozen:
            self.note_use(inputs.frozen, name)
        before = self._marks(name, inputs)
        plain_args, plain_kwargs = inputs.plain()
        result = forward(*plain_args, **plain_kwargs)
        leaves, spec = tree_flatten(result)
        if reason := self._why_unsteady(before, self._marks(name, inputs)):
            self.unsteady.setdefault(name, reason)
        if reason or not self._is_frozen(inputs, leaves, continues):
            if continues:
                self.note_use(inputs.frozen, name)
            return result
        region = inputs.frozen[0].region if continues else _Region()
        assert isinstance(region, _Region)
        region.calls.append(number)
        made.region = region
        return tree_unflatten(
            [
                marked(leaf, self, region, frozenset({(number, place)}), True)
                if isinstance(leaf, Tensor)
                else leaf
                for place, leaf in enumerate(leaves)
            ],
            spec,
        )

    def _is_frozen(self, inputs: CallInputs, leaves: list[Any], continues: bool) -> bool:
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        is_along = all(t.ndim and t.shape[0] == self._count for t in tensors)
        is_fed = continues or any(t.ndim and t.shape[0] == self._count for t in inputs.tensors)
        is_plain = inputs.settings is not None and is_plain_result(leaves)
        needs_gradient = any(t.requires_grad for t in (*tensors, *inputs.tensors))
        is_dense = all(t.layout == torch.strided for t in (*tensors, *inputs.tensors))
        return (
            bool(tensors) and is_along and is_fed and is_plain and is_dense and not needs_gradient
        )

    def _marks(self, name: str, inputs: CallInputs) -> tuple[Any, ...]:
        """Returns what a call must leave as it is."""
        unit = self._units[name]
        drawn = self.has_drawn()
        tensors = [*unit.parameters(), *unit.buffers()]
        counts = [
            (key, value)
            for module in unit.modules()
            for key, value in vars(module).items()
            if type(value) in (bool, int, float, str)
        ]
        outside = [t for t in inputs.tensors if not isinstance(t, FrozenValue)]
        return (
            drawn,
            [(id(t), version_of(t)) for t in tensors],
            counts,
            [version_of(t) for t in outside],
        )

    @staticmethod
    def _why_unsteady(before: tuple[Any, ...], after: tuple[Any, ...]) -> str | None:
        if after[0]:
            return "draws random numbers"
        if before[1] != after[1]:
            return "writes a buffer or a parameter"
        if before[2] != after[2]:
            return "keeps a count of its calls"
        return "writes into its input" if before[3] != after[3] else None

    def boundary(self) -> Boundary | None:
        """Returns the frozen part; None if there is none that saves anything."""
        regions = [
            region
            for region in dict.fromkeys(id(call.region) for call in self.calls if call.region)
            if self._is_kept(region)
        ]
        numbers = {region: number for number, region in enumerate(regions)}
        if not regions:
            return None
        by_id = {id(call.region): call.region for call in self.calls if call.region}
        return Boundary(
            units=self._units,
            calls=tuple((call.name, numbers.get(id(call.region))) for call in self.calls),
            used=tuple(frozenset(by_id[region].used) for region in regions),
        )

    def _is_kept(self, region_id: int) -> bool:
        calls = [call for call in self.calls if call.region and id(call.region) == region_id]
        region = calls[0].region
        assert region is not None
        return bool(region.used) and any(has_parameters(self._units[call.name]) for call in calls)


def constants_of(model: nn.Module) -> set[int]:
    """Returns the ids of a model's frozen parameters, and of its buffers but for statistics that
    a pass writes."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    buffers = [
        buffer
        for module in model.modules()
        if not (isinstance(module, AnyTrackingNorm) and module.training)
        for buffer in module.buffers(recurse=False)
    ]
    return {id(tensor) for tensor in (*frozen, *buffers)}
