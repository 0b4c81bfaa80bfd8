"""The augmentation of a pack's batches: each member's own, from the seed that it has alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from volano.device import Device
from volano.packing.member import MemberState
from volano.packing.pack_feed import PackBatch, copy_of
from volano.packing.refusal import NotPackable
from volano.packing.structure.side_effects import changed_leaf, leaves_of, unseen_leaf
from volano.task import Batch
from volano.training import seed_of_augmentation
from volano.training.graphs.recorded_call import RecordedCall


class PackAugmentation:
    """The augmentation of the members' batches.

    Members that augment alike share one recording of it, if the device records: it is then a launch
    for each member, where the host would start each of its kernels.

    Args:
        solos: the members, which have an augmentation.
        rows: the numbers of each that vary, by name.
        generator: the generator from which they draw.
        is_recorded: whether the device records.

    Attributes:
        recorded: the recording; None if there is none.
    """

    def __init__(
        self, solos: Sequence[MemberState], rows: Sequence[Mapping[str, float]], device: Device,
        generator: torch.Generator, *, is_recorded: bool,
    ) -> None:  # fmt: skip
        self._solos, self._generator = solos, generator
        names = [name for name in rows[0] if name.startswith("augment")]
        self._numbers = [tuple(row[name] for name in names) for row in rows]
        is_recorded = is_recorded and len(set(self._numbers)) == 1
        self.recorded = RecordedCall(device, [generator]) if is_recorded else None

    def __call__(self, batch: PackBatch) -> PackBatch:
        """Returns the augmented batches; members with the same batch, seed and numbers share
        one."""
        distinct: dict[tuple[Any, ...], Batch] = {}
        keys = []
        for slot, solo in enumerate(self._solos):
            seed = seed_of_augmentation(solo.task, solo.step)
            key = (batch.of_member[slot], seed, *self._numbers[slot])
            if key not in distinct:
                self._generator.manual_seed(seed)
                distinct[key] = self._augmented(solo.task.augment, batch.of(slot))
            keys.append(key)
        places = list(distinct)
        return PackBatch(list(distinct.values()), tuple(places.index(key) for key in keys))

    def _augmented(self, augment: Any, batch: Batch) -> Batch:
        def compute(given: Batch) -> Batch:
            held = leaves_of(augment, (("augment", "augment"),))
            result = augment(given, self._generator)
            now = leaves_of(augment, (("augment", "augment"),))
            if (place := unseen_leaf(held) or changed_leaf(held, now)) is not None:
                raise NotPackable(f"{place} may change with each call")
            return result

        if self.recorded is not None and self.recorded.launched(batch, compute):
            return copy_of(self.recorded.result)
        # A copy: ``augment`` may work in place, and other members share the batch.
        return augment(copy_of(batch), self._generator)
