"""Finds the frozen prefix of a model, and whether what it computes may be kept.

It is looked at, not parsed: the objective is passed over a few examples, and then what was kept of
them must give the same loss and gradient, from other random numbers and in other batches too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.device.torch_private import parameters_of, version_of
from volano.task import Batch, as_loss, map_tensors, num_examples, split, tensors_of
from volano.training.memory.buffers import SavedBuffers, places_of
from volano.training.prefix.kept_features import KeptFeatures
from volano.training.prefix.kept_pass import AllKnownError, KeptPass
from volano.training.prefix.observe_pass import Boundary, constants_of, find_boundary
from volano.training.prefix.row_digests import RowDigests
from volano.training.prefix.units import PrefixMismatchError, frozen_units, has_parameters

# Enough to see whether the examples of a batch depend on one another.
_NUM_EXAMPLES = 4
BoundObjective = Callable[[Batch], Any]


@dataclass(frozen=True, kw_only=True)
class FrozenPrefixFacts:
    """The frozen prefix of a model.

    Attributes:
        boundary: its modules, calls and what is used of them.
        num_layers: layers (modules with parameters of their own) of the model.
        num_frozen: those whose output is kept or not needed.
        row_bytes: bytes that are kept of an example.
        is_exact: whether other batches gave the same bits.
        computing: seconds of the prefix for an example.
        looking: seconds of finding and taking up what was kept of an example.
        step: seconds of forward and backward pass for an example.
    """

    boundary: Boundary
    num_layers: int
    num_frozen: int
    row_bytes: float
    is_exact: bool
    computing: float
    looking: float
    step: float

    @property
    def share(self) -> float:
        """The share of a step, without its update, that is saved by what is kept."""
        return max(0.0, min(1.0, (self.computing - self.looking) / self.step))


def has_frozen_layers(model: nn.Module) -> bool:
    """Returns whether a model has modules with parameters none of which is trained."""
    return any(map(has_parameters, frozen_units(model).values()))


def find_prefix(
    model: nn.Module, objective: BoundObjective, batch: Batch, device: Device
) -> FrozenPrefixFacts | str:
    """Returns the frozen prefix of a model, or why nothing can be kept.

    Args:
        model: the model in training, on the device.
        objective: returns the loss of a batch, as a step computes it.
        batch: some examples, on the device.

    Random state and the model's buffers are put back.
    """
    if not has_frozen_layers(model):
        return "no layer of the model is frozen"
    buffers = SavedBuffers(places_of(model))
    with random_state_kept(device):
        try:
            return _Finder(model, objective, batch, device, buffers).found()
        except PrefixMismatchError as error:
            return str(error)
        finally:
            buffers.put_back()


class _Finder:
    """The search for the prefix of one model."""

    def __init__(
        self,
        model: nn.Module,
        objective: BoundObjective,
        batch: Batch,
        device: Device,
        buffers: SavedBuffers,
    ) -> None:
        self._model, self._objective, self._device = model, objective, device
        self._buffers = buffers
        self._part = split(batch, _NUM_EXAMPLES)[0]
        self._count = num_examples(self._part)
        self._digests = RowDigests(device.torch_device)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._constants = constants_of(model)

    def found(self) -> FrozenPrefixFacts | str:
        """Returns what was found."""
        found: Boundary | str = find_boundary(
            self._model, lambda: self._loss(self._part, 0), self._count, self._device
        )
        while not isinstance(found, str):
            checked = self._checked(found)
            if not isinstance(checked, dict):
                return checked
            found = found.without(checked) or next(iter(checked.values()))
        return found

    def _checked(self, boundary: Boundary) -> FrozenPrefixFacts | str | dict[int, str]:
        """Returns the facts; why nothing may be kept; or why some regions may not."""
        self._kept = KeptFeatures(self._count, device=self._device)
        self._device.synchronize()
        started = time.perf_counter()
        first = self._pass(boundary, self._count)
        loss = first.run(lambda: self._loss(self._part, 0))
        gradients = self._gradients(loss)
        self._device.synchronize()
        step = time.perf_counter() - started
        bad, difference = self._in_other_batches(boundary)
        if bad:
            return bad
        again = self._pass(boundary, self._count)
        same = again.run(lambda: self._loss(self._part, 0))
        change = max(map(off, [_total(same), *self._gradients(same)], [_total(loss), *gradients]))
        if again.num_new or not change <= allowed_difference(self._device):
            return f"loss and gradient change by {change:.1e} if its output is kept"
        layers = [
            module for module in self._model.modules()
            if any(value is not None for value in parameters_of(module).values())
        ]  # fmt: skip
        inside = {id(m) for unit in boundary.kept_units.values() for m in unit.modules()}
        return FrozenPrefixFacts(
            boundary=boundary,
            num_layers=len(layers),
            num_frozen=sum(id(layer) in inside for layer in layers),
            row_bytes=self._kept.room.taken / self._count,
            is_exact=not change and not difference,
            computing=first.computing / self._count,
            looking=again.looking / self._count,
            step=step / self._count,
        )

    def _pass(self, boundary: Boundary, count: int, **options: bool) -> KeptPass:
        passed = KeptPass(boundary, self._kept, self._digests, self._constants, count, **options)
        passed.synchronize = self._device.synchronize  # what is timed here decides what is planned
        return passed

    def _loss(self, part: Batch, seed: int) -> Any:
        self._device.seed(seed)
        self._buffers.put_back()
        copied = map_tensors(lambda tensor: tensor.clone(), part)
        versions = list(map(version_of, tensors_of(copied)))
        result = self._objective(copied)
        if versions != list(map(version_of, tensors_of(copied))):
            # A pass that is made again would meet another batch.
            raise PrefixMismatchError("the objective writes into its batch")
        return result

    def _gradients(self, loss: Any) -> list[Tensor | None]:
        total = _total(loss)
        if not total.requires_grad:
            return []
        return list(torch.autograd.grad(total, self._trained, allow_unused=True))

    def _in_other_batches(self, boundary: Boundary) -> tuple[dict[int, str], float]:
        """Returns the regions that are not the same in halves of the batch and from other draws,
        with the reason, and how far the others are off at most."""
        bad: dict[int, str] = {}
        worst, limit = 0.0, allowed_difference(self._device)
        known = [self._kept.rows_of(region) for region in range(len(boundary.used))]
        for number, part in enumerate(split(self._part, max(1, self._count // 2))):
            passed = self._pass(boundary, num_examples(part), recomputes=True, ends_early=True)
            _until_known(lambda part=part, n=number: self._loss(part, 1 + n), passed)
            for region, rows in enumerate(passed.computed):
                if not rows.keys() <= known[region].keys():
                    bad[region] = "its input is drawn again each time, or depends on the batch"
                    continue
                pairs = [(row[s], known[region][k][s]) for k, row in rows.items() for s in row]
                difference = max((off(ours, theirs) for ours, theirs in pairs), default=0.0)
                if difference <= limit:
                    worst = max(worst, difference)
                else:
                    bad[region] = "what it computes of an example depends on the others of a batch"
        return bad, worst


def _until_known(objective: Callable[[], Any], passed: KeptPass) -> None:
    try:
        passed.run(objective)
    except AllKnownError:
        return


def _total(loss: Any) -> Tensor:
    return as_loss(loss, 1).total


def allowed_difference(device: Device) -> float:
    """Returns how far two ways of computing the same may be off: half of a type's digits."""
    kind = device.kind
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    return torch.finfo(narrow).eps ** 0.5


def off(ours: Tensor | None, theirs: Tensor | None) -> float:
    """Returns how far a tensor is off another one, relative to its norm."""
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else float("inf")
    if torch.equal(ours, theirs):
        return 0.0
    a, b = ours.detach().cpu().double(), theirs.detach().cpu().double()
    norm = float(b.norm())
    return float((a - b).norm()) / norm if norm else float("inf")
