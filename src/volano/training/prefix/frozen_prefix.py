"""The frozen prefix of one training: keeps what it computes of each example, and takes it up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.device.torch_private import version_of
from volano.task import Batch, map_tensors, num_examples, pick, split
from volano.training.memory.out_of_memory import attempt
from volano.training.prefix.early_digests import EarlyDigests
from volano.training.prefix.feature_room import FeatureRoom, NoRoomError
from volano.training.prefix.find_prefix import (
    BoundObjective,
    FrozenPrefixFacts,
    allowed_difference,
    find_prefix,
    off,
)
from volano.training.prefix.kept_features import KeptFeatures
from volano.training.prefix.kept_pass import AllKnownError, KeptPass, PartlyKnownError
from volano.training.prefix.observe_pass import constants_of
from volano.training.prefix.row_digests import Digest, RowDigests
from volano.training.prefix.units import PrefixMismatchError

# Examples of a spot check.
_NUM_CHECKED = 2
# Examples that are new once so many times the data's were looked up are other ones in each epoch.
_MOST_NEW = 1.5
NOT_ALIKE = (PrefixMismatchError, NoRoomError)


class FrozenPrefix:
    """The frozen prefix of a model: found at the first batch, used from then on.

    What is kept is found again by the content of an example, so that neither order, ranks,
    micro-batches nor a corrupt example's substitute can bring the features of another one. It is no
    longer used if the frozen weights are written, or something else than before needs it.

    Args:
        model: the model, on its device, in the mode in which it is passed.
        capacity: examples that are expected.

    Attributes:
        is_on: whether it is used.
        facts: what was found; None before the first batch.
        use: what was taken up so far.
        on_stop: hears why it is used no longer.
        on_mapped: hears that what is kept does not fit into memory.
    """

    def __init__(self, model: nn.Module, device: Device, capacity: int) -> None:
        self._model, self._device, self._capacity = model, device, capacity
        self._digests = EarlyDigests(device)
        self._room = FeatureRoom.of(device)
        self._room.on_mapped = lambda said: self.on_mapped(said)
        self._kept = KeptFeatures(capacity, self._room, device)
        self._constants: set[int] = set()
        self._weights: list[_Weight] = []
        self._num_new = 0
        self.is_on = True
        self.facts: FrozenPrefixFacts | None = None
        self.use = FeatureUse()
        self.on_stop: Callable[[str], None] = lambda _: None
        self.on_mapped: Callable[[str], None] = lambda _: None

    def stop(self, reason: str) -> None:
        """Uses the prefix no longer, and frees what is kept."""
        if self.is_on:
            self.is_on = False
            self._kept = KeptFeatures(0)
            self._digests, self._weights = EarlyDigests(self._device), []
            self.on_stop(reason)

    def begin(self, objective: BoundObjective, batch: Batch) -> None:
        """Finds the prefix by some examples, unless it is found."""
        if self.facts is not None or not self.is_on:
            return
        found = find_prefix(self._model, objective, batch, self._device)
        if isinstance(found, str):
            self.stop(found)
            return
        reason = self._room.why_not(found.row_bytes, self._capacity, found.computing)
        if reason is not None:
            self.stop(reason)
            return
        self.facts = found
        self._constants = constants_of(self._model)
        units = found.boundary.kept_units.values()
        tensors = [t for unit in units for t in (*unit.parameters(), *unit.buffers())]
        self._weights = [_Weight(tensor, self._digests) for tensor in tensors]

    def loss(self, objective: BoundObjective, batch: Batch) -> Any:
        """Returns the objective's result for a batch, without running the prefix if all its
        examples are known.

        Raises:
            PrefixMismatchError: the pass is not like those before; nothing of it may be used.
            NoRoomError: what is kept takes too much memory; nothing of the pass may be used.
        """
        if not self.is_on or self.facts is None:
            return objective(batch)
        if any(weight.has_changed() for weight in self._weights):
            raise PrefixMismatchError("weights or buffers of a frozen layer were written")
        result = self._run(objective, batch)
        if self._num_new > _MOST_NEW * self._capacity + 2 * num_examples(batch):
            self.stop("the examples are not the same in each epoch")
        return result

    def announce(self, batch: Batch) -> None:
        """Hears of a batch before the step of the one before it is made, so that the host need not
        wait for the device in its own. If there is no memory for it, the step does it."""
        if self.is_on and self.facts is not None:
            attempt(lambda: self._digests.announce(batch))

    def learn(self, objective: BoundObjective, batch: Batch) -> None:
        """Keeps what the prefix computes of a batch, and computes nothing else."""
        if self.is_on and self.facts is not None:
            try:
                self._run(objective, batch, ends_early=True)
            except AllKnownError:
                return
            except NOT_ALIKE as error:
                self.stop(str(error))

    def spot_check(self, objective: BoundObjective, batch: Batch) -> None:
        """Stops if some examples of a batch are no longer computed as they are kept.

        Digests are of the examples, and versions count writes: what neither of them sees, a module
        that behaves otherwise than before or a write through ``.data``, is seen here.
        """
        if not self.is_on or self.facts is None:
            return
        part = map_tensors(lambda tensor: tensor.clone(), split(batch, _NUM_CHECKED)[0])
        passed = self._pass(part, recomputes=True, ends_early=True)
        with random_state_kept(self._device), contextlib.suppress(AllKnownError, *NOT_ALIKE):
            passed.run(lambda: objective(part))
        limit = allowed_difference(self._device)
        for region, rows in enumerate(passed.computed):
            known = self._kept.rows_of(region, rows)
            pairs = [(rows[k][source], row) for k in known for source, row in known[k].items()]
            if any(not off(ours, theirs) <= limit for ours, theirs in pairs):
                self.stop("a frozen layer computes something else than before")
                return

    def _run(self, objective: BoundObjective, batch: Batch, **options: bool) -> Any:
        """Makes a pass; if only some examples of the batch are new, these are computed alone."""
        assert self.facts is not None
        num_regions = len(self.facts.boundary.used)
        states = self._device.generator_states()
        passed = self._pass(batch, asks=num_regions == 1, **options)
        try:
            return passed.run(lambda: objective(batch))
        except PartlyKnownError as error:
            new = pick(batch, error.places)
        finally:
            self._num_new += passed.num_new // num_regions
            self.use.add(passed, num_regions)
        alone = self._pass(new, ends_early=True)
        self._num_new += num_examples(new)
        self._device.set_generator_states(states)
        with contextlib.suppress(AllKnownError):
            alone.run(lambda: objective(new))
        self.use.add(alone, num_regions)
        self._device.set_generator_states(states)
        whole = self._pass(batch, **options)
        try:
            return whole.run(lambda: objective(batch))
        finally:
            self.use.add(whole, num_regions)

    def _pass(self, batch: Batch, **options: bool) -> KeptPass:
        assert self.facts is not None
        return KeptPass(
            self.facts.boundary, self._kept, self._digests, self._constants,
            num_examples(batch), **options,
        )  # fmt: skip


@dataclass
class FeatureUse:
    """The use of what is kept: examples that were computed and those that were taken up, with the
    seconds of both."""

    num_computed: int = 0
    num_taken: int = 0
    computing: float = 0.0
    looking: float = 0.0

    @property
    def saved_seconds(self) -> float:
        """The seconds that computing them again would have taken, less those of taking up."""
        if not self.num_computed:
            return 0.0
        return self.num_taken * self.computing / self.num_computed - self.looking

    def add(self, passed: KeptPass, num_regions: int) -> None:
        """Adds a pass."""
        self.num_computed += passed.num_new // num_regions
        self.num_taken += passed.num_known // num_regions
        self.computing += passed.computing
        self.looking += passed.looking


class _Weight:
    """A frozen parameter or buffer, by which what was computed stands."""

    def __init__(self, tensor: Tensor, digests: RowDigests) -> None:
        self._tensor, self._digests = tensor, digests
        self._version, self._digest = version_of(tensor), self._digest_now()

    def has_changed(self) -> bool:
        """Checks whether it has other values. It is read only if it was written: a buffer may be
        put back."""
        if version_of(self._tensor) == self._version:
            return False
        self._version = version_of(self._tensor)
        return self._digest_now() != self._digest

    def _digest_now(self) -> Digest:
        return self._digests([self._tensor.reshape(1, -1)])[0]
