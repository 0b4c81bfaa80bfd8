"""A pass of the objective in which what frozen modules computed before is taken up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from volano.device.torch_private import tree_flatten, tree_unflatten
from volano.training.prefix.frozen_value import FrozenValue, Source, marked, stand_in
from volano.training.prefix.kept_features import Features, KeptFeatures
from volano.training.prefix.observe_pass import Boundary
from volano.training.prefix.row_digests import Digest, RowDigests
from volano.training.prefix.units import CallInputs, PrefixMismatchError, UnitPass


class AllKnownError(Exception):
    """Ends a pass of which nothing but the frozen part is needed."""


class PartlyKnownError(Exception):
    """Ends a pass over a batch of which some examples are known and some are not.

    Attributes:
        places: the places of those that are not, each once.
    """

    def __init__(self, places: list[int]) -> None:
        super().__init__(places)
        self.places = places


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a result: the shape of its rows, and its type."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class _State:
    """A region in one pass."""

    features: Features
    keys: list[Digest]
    is_known: bool
    found: dict[Source, Tensor] = field(default_factory=dict)


class KeptPass(UnitPass):
    """A pass that computes a region if an example of the batch is new to it, and keeps the new
    ones; otherwise its modules do not run, and what is used of them is taken from what is kept.

    Args:
        boundary: the frozen part.
        kept: what is kept.
        digests: the digests of examples.
        constants: see :class:`Watcher`.
        count: the examples of the batch.
        recomputes: whether everything is computed, and nothing taken up or kept.
        ends_early: whether the pass ends by AllKnownError once the regions are done.
        asks: whether the pass ends by PartlyKnownError if some examples are known and some are not.

    Attributes:
        num_known: examples of regions that were taken up.
        num_new: examples of regions that were not known.
        computing, looking: seconds in the regions' modules, and in finding and taking up.
        computed: for each region, digest -> output -> row; only if everything is computed.
        synchronize: waits for the device before a clock is read; nothing is waited for otherwise,
            since a training must not.
    """

    def __init__(
        self,
        boundary: Boundary,
        kept: KeptFeatures,
        digests: RowDigests,
        constants: Any,
        count: int,
        *,
        recomputes: bool = False,
        ends_early: bool = False,
        asks: bool = False,
    ) -> None:
        super().__init__(boundary.kept_units, constants, count)
        self._calls = [call for call in boundary.calls if call[0] in self._units]
        self._numbers = [n for n, call in enumerate(boundary.calls) if call[0] in self._units]
        self._used, self._kept, self._digests = boundary.used, kept, digests
        self._recomputes, self._ends_early, self._asks = recomputes, ends_early, asks
        self._last = max(number for number, call in enumerate(self._calls) if call[1] is not None)
        self._next = 0
        self._states: dict[int, _State] = {}
        self.num_known = self.num_new = 0
        self.computing = self.looking = 0.0
        self.computed: list[dict[Digest, dict[Source, Tensor]]] = [{} for _ in boundary.used]
        self.synchronize: Callable[[], object] = lambda: None

    def run(self, objective: Callable[[], Any]) -> Any:
        """Returns the objective's result; see :class:`UnitPass`.

        Raises:
            PrefixMismatchError: the pass is not like the one that was observed.
            NoRoomError: there is no room for what is to be kept.
        """
        result = super().run(objective)
        if self._next != len(self._calls):
            raise PrefixMismatchError("fewer of its modules are called than before")
        self._commit()
        return result

    def _commit(self) -> None:
        for state in self._states.values():
            if not state.is_known and not self._recomputes:
                rows = state.features.rows
                for key in _new(state.keys, rows):
                    rows[key] = len(rows)

    def note_use(self, values: list[FrozenValue], name: str) -> None:
        if not all(value.is_real for value in values):
            raise PrefixMismatchError(f"{name or 'something'} uses what nothing has used before")

    def call(self, name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        place = self._next
        self._next += 1
        if place >= len(self._calls) or self._calls[place][0] != name:
            raise PrefixMismatchError(f"{name} is called at another place than before")
        number, region = self._numbers[place], self._calls[place][1]
        inputs = CallInputs(args, kwargs)
        if region is None:
            if inputs.frozen:
                self.note_use(inputs.frozen, name)
            plain_args, plain_kwargs = inputs.plain()
            return forward(*plain_args, **plain_kwargs)
        state = self._states.get(region)
        if state is None:
            started = self._now()
            state = self._states[region] = self._entered(region, inputs)
            self.looking += self._now() - started
        else:
            self._check_continues(name, number, state, inputs)
        result = (
            self._taken_up(number, state)
            if state.is_known
            else self._computed(number, region, state, forward, inputs)
        )
        if self._ends_early and place == self._last:
            self._commit()
            raise AllKnownError
        return result

    def _entered(self, region: int, inputs: CallInputs) -> _State:
        if inputs.frozen:  # of another region, whose values are real
            self.note_use(inputs.frozen, "another region")
        rows, others = inputs.rows_and_others(self._count)
        keys = self._digests.of_region(region, rows)
        signature = (
            region,
            inputs.settings,
            tuple((tuple(t.shape[1:]), t.dtype) for t in rows),
            tuple((tuple(t.shape), t.dtype) for t in others),
            tuple(map(self._digests.of_constant, others)),
        )
        features = self._kept.of(signature)
        new = set(_new(keys, features.rows))
        is_known = not self._recomputes and not new
        places = {key: place for place, key in enumerate(keys) if key in new}
        if self._asks and new and len(new) < len(set(keys)):
            raise PartlyKnownError(sorted(places.values()))
        self.num_known += self._count if is_known else 0
        self.num_new += len(new)
        return _State(features=features, keys=keys, is_known=is_known)

    def _check_continues(self, name: str, number: int, state: _State, inputs: CallInputs) -> None:
        if not (
            len(inputs.frozen) == len(inputs.tensors)
            and all(value.region is state for value in inputs.frozen)
        ):
            raise PrefixMismatchError(f"{name} gets its input from elsewhere than before")
        if state.features.settings.setdefault(number, inputs.settings) != inputs.settings:
            raise PrefixMismatchError(f"{name} is called with other settings than before")

    def _taken_up(self, number: int, state: _State) -> Any:
        started = self._now()
        leaves, spec = state.features.results[number]
        rows = [state.features.rows[key] for key in state.keys]
        made = []
        for place, leaf in enumerate(leaves):
            if not isinstance(leaf, _Tensor):
                made.append(leaf)
                continue
            source = number, place
            column = state.features.columns.get(source)
            if column is None:
                value = stand_in(self._count, leaf.shape, leaf.dtype, self._digests.device)
            else:
                value = column.take(rows)
            made.append(marked(value, self, state, frozenset({source}), column is not None))
        self.looking += self._now() - started
        return tree_unflatten(made, spec)

    def _computed(
        self,
        number: int,
        region: int,
        state: _State,
        forward: Callable[..., Any],
        inputs: CallInputs,
    ) -> Any:
        plain_args, plain_kwargs = inputs.plain()
        started = self._now()
        result = forward(*plain_args, **plain_kwargs)
        self.computing += self._now() - started
        leaves, spec = tree_flatten(result)
        made = []
        for place, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor):
                made.append(leaf)
                continue
            if not leaf.ndim or leaf.shape[0] != self._count or leaf.requires_grad:
                raise PrefixMismatchError("its output is no batch of examples")
            source = number, place
            if source in self._used[region]:
                self._keep(region, state, source, leaf)
            made.append(marked(leaf, self, state, frozenset({source}), True))
        described = [
            _Tensor(tuple(leaf.shape[1:]), leaf.dtype) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        state.features.results.setdefault(number, (described, spec))
        return tree_unflatten(made, spec)

    def _now(self) -> float:
        self.synchronize()
        return time.perf_counter()

    def _keep(self, region: int, state: _State, source: Source, rows: Tensor) -> None:
        if self._recomputes:
            for key, row in zip(state.keys, rows.detach().unbind(), strict=True):
                self.computed[region].setdefault(key, {})[source] = row.clone()
            return
        new = _new(state.keys, state.features.rows)
        if not new:
            return
        places = {key: place for place, key in enumerate(state.keys)}
        column = self._kept.column(state.features, source, rows)
        chosen = column.send(torch.tensor([places[key] for key in new]))
        column.put(len(state.features.rows), rows.detach().index_select(0, chosen))


def _new(keys: list[Digest], rows: dict[Digest, int]) -> list[Digest]:
    """Returns the keys without a row, each once."""
    return [key for key in dict.fromkeys(keys) if key not in rows]
