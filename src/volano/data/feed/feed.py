"""The feeds: keys in, batches on the device out. There are two with one contract; both give bitwise
the same batches."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from volano.data.arrays import rows_of, take
from volano.data.feed.fetch import Fault, Fetcher
from volano.data.feed.quarantine import Quarantine
from volano.data.feed.slots import Slots, SlotWriter, bytes_in_slot, can_share, unpacked, with_room
from volano.data.feed.workers import Workers
from volano.data.order import Key
from volano.device import Device, Transfer
from volano.errors import PlanError
from volano.task import Batch, num_examples

# The share of the device's free memory that resident data may take; the rest is for the training.
_RESIDENT_SHARE = 0.4
# Indices of this many batches go to the device in one copy.
_KEYS_PER_COPY = 64
# Slots in use at a time: one is held by the consumer, one is being copied, one is spare.
SLOTS_IN_USE, _SLOTS_IN_PROCESS = 3, 4
_END = object()


class Feed(ABC):
    """A feed gives the batches of a sequence of keys, in that order, on the device.

    Attributes:
        seconds_waited: seconds that the consumer has waited for batches; may be reset. Waiting for
            the device, which is behind, is not counted.
        on_notice: called with notices about the feeding.
        is_stopping: whether the run was asked to stop, and waits for no batch much longer.
    """

    def __init__(self) -> None:
        self.seconds_waited = 0.0
        self.on_notice: Callable[[str], None] = lambda _: None
        self.is_stopping: Callable[[], bool] = lambda: False

    def batches(self, keys: Iterable[Key]) -> Generator[Batch, None, None]:
        """Yields one batch a key. The iterator ends with the keys; closing it early frees what it
        holds.

        Raises:
            DataError: the data cannot be trained on; raised between two batches, so that the caller
                can still save.
        """
        with contextlib.closing(self._batches(keys)) as made:
            while True:
                start = time.perf_counter()
                batch = next(made, _END)
                self.seconds_waited += time.perf_counter() - start
                if batch is _END:
                    return
                yield batch

    def _not_waited(self, seconds: float) -> None:
        self.seconds_waited -= seconds

    @abstractmethod
    def _batches(self, keys: Iterable[Key]) -> Generator[Batch, None, None]: ...


class ResidentFeed(Feed):
    """A feed that keeps the encoded set on the device; a batch is gathered there. There are no
    workers, and the loop copies no examples."""

    def __init__(self, tree: Batch, device: Device) -> None:
        super().__init__()
        self._tree = device.move(tree)
        self._device = device

    def _batches(self, keys: Iterable[Key]) -> Generator[Batch, None, None]:
        if self._device.is_cpu:
            for key in keys:
                yield take(self._tree, _as_tensor(key.indices))
            return
        keys = iter(keys)
        while group := list(itertools.islice(keys, _KEYS_PER_COPY)):
            joined = _as_tensor(np.concatenate([key.indices for key in group]))
            joined = self._device.send(joined)
            for indices in joined.split([len(key.indices) for key in group]):
                yield take(self._tree, indices)


class RingFeed(Feed):
    """A feed that makes batches on the host, in a ring of slots; each is copied to the device while
    the one before it is used.

    With ``workers`` so many processes make them, each ``prefetch`` batches ahead. The first batch
    of all shows how large slots must be, and travels outside of slots; so does any later batch that
    does not fit, and larger slots follow it.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        device: Device,
        quarantine: Quarantine,
        *,
        workers: int = 0,
        prefetch: int = 2,
    ) -> None:
        super().__init__()
        self._fetcher = fetcher
        self._device = device
        self._quarantine = quarantine
        self._workers = workers
        self._prefetch = prefetch
        self._largest, self._is_told = 0, False

    def _batches(self, keys: Iterable[Key]) -> Generator[Batch, None, None]:
        source = self._from_workers if self._workers else self._in_process
        if self._device.is_cpu:
            with contextlib.closing(source(keys)) as made:
                yield from (batch for batch, _ in made)
            return
        transfer, ahead = Transfer(self._device), None
        try:
            with contextlib.closing(source(keys)) as made:
                for batch, release in made:
                    # The slot is free only when this copy has read it, an event that `release`
                    # keeps.
                    pending = transfer.start(batch)
                    release(pending[1])
                    # Handed out one batch late: the copy runs while the consumer computes.
                    before, ahead = ahead, pending
                    if before is not None:
                        yield transfer.finish(before)
            before, ahead = ahead, None
            if before is not None:
                yield transfer.finish(before)
        finally:
            # Closed early, a copy is on its way into memory that is about to be freed.
            if ahead is not None and ahead[1] is not None:
                ahead[1].synchronize()

    def _in_process(self, keys: Iterable[Key]) -> Generator[_Arrived, None, None]:
        made: list[Slots] = []
        try:
            for key in self._expected(keys):
                # Without workers slots pay only if page-locked, for copies that need not wait.
                if self._device.can_pin:
                    self._make_slots(made, _SLOTS_IN_PROCESS, shared=False)
                slots = made[-1] if made else None
                slot = None if slots is None else slots.acquire()
                if slots is None or slot is None:
                    yield self._checked(*self._fetcher(key)), _nothing_to_release
                else:
                    memory = slots.memory(slot)
                    writer = SlotWriter(memory)
                    batch, faults = self._fetcher(key, writer)
                    yield (
                        self._checked(unpacked(writer.packed(batch), memory), faults),
                        functools.partial(slots.release, slot),
                    )
        finally:
            for slots in made:
                slots.close()

    def _expected(self, keys: Iterable[Key]) -> Iterator[Key]:
        """Yields the keys, each so many batches after it was announced to the fetcher."""
        ahead: collections.deque[Key] = collections.deque()
        for key in keys:
            self._fetcher.expect(key)
            ahead.append(key)
            if len(ahead) > self._prefetch:
                yield ahead.popleft()
        yield from ahead

    def _from_workers(self, keys: Iterable[Key]) -> Generator[_Arrived, None, None]:
        ahead = self._workers * self._prefetch
        given: list[Slots] = []
        workers = Workers(
            self._fetcher,
            num=self._workers,
            ahead=ahead,
            on_notice=self.on_notice,
            is_stopping=lambda: self.is_stopping(),
        )
        try:
            self._give_slots(workers, given, ahead)
            for made, slots in workers.made(keys):
                if made.error is not None:
                    raise made.error
                if slots is None or made.slot is None:
                    yield self._checked(made.batch, made.faults), _nothing_to_release
                else:
                    yield (
                        self._checked(unpacked(made.batch, slots.memory(made.slot)), made.faults),
                        functools.partial(slots.release, made.slot),
                    )
                # After each batch: it may have been larger than any before it.
                self._give_slots(workers, given, ahead)
        finally:
            workers.close()
            for slots in given:
                slots.close()

    def _give_slots(self, workers: Workers, given: list[Slots], ahead: int) -> None:
        if can_share() and self._make_slots(given, ahead + SLOTS_IN_USE, shared=True):
            workers.use(given[-1])

    def _make_slots(self, made: list[Slots], num: int, *, shared: bool) -> bool:
        """Adds slots if the largest batch does not fit the last ones. They at least double, so that
        all earlier slots together take no more than these; batches on their way still lie in the
        earlier ones."""
        before = made[-1].num_bytes if made else 0
        if self._largest <= before:
            return False
        made.append(
            Slots(
                self._device,
                num,
                max(with_room(self._largest), 2 * before),
                shared=shared,
                on_throttled=self._not_waited,
            )
        )
        if not made[-1].copies_beside and not self._is_told:
            self._is_told = True
            self.on_notice(
                "copies to the device wait for the host: this system does not let its memory be "
                "page-locked"
            )
        return True

    def _checked(self, batch: Batch, faults: list[Fault]) -> Batch:
        self._quarantine.add([*faults], num_examples(batch))
        self._largest = max(self._largest, bytes_in_slot(batch))
        return batch


_Arrived = tuple[Batch, Callable[[torch.Event | None], None]]


def _nothing_to_release(_copied: torch.Event | None) -> None:
    pass


def make_feed(
    data: Any,
    collate: Callable[[list[Any]], Batch] | None,
    device: Device,
    *,
    feed: str,
    workers: int,
    prefetch: int,
    seed: int,
    quarantine: Quarantine,
) -> Feed:
    """Makes the feed that a plan names. On the CPU, mapped files lie in the device's memory
    already: their resident feed reads a batch's rows there, and announces them to the disk
    beforehand if needed.

    Raises:
        PlanError: ``feed="resident"`` for data that cannot be resident.
    """
    if feed == "resident":
        possible, reason = can_be_resident(data, collate, device)
        rows = rows_of(data)
        if not possible or rows is None:
            raise PlanError(
                "For a resident feed the data must be tensors that fit into the device's memory",
                got=reason,
                remedy="Pin `feed` to ring",
            )
        if rows.is_mapped and device.is_cpu:
            return RingFeed(Fetcher(data, collate, seed), device, quarantine)
        in_sequence = rows.in_sequence if rows.indices is None else None
        with contextlib.nullcontext() if in_sequence is None else in_sequence():
            return ResidentFeed(rows.tensors(), device)
    return RingFeed(
        Fetcher(data, collate, seed), device, quarantine, workers=workers, prefetch=prefetch
    )


def can_be_resident(data: Any, collate: Any, device: Device) -> tuple[bool, str]:
    """Returns whether the data can be kept on the device without changing the experiment, and
    why."""
    if collate is not None:
        return False, "the task has a collate function of its own"
    rows = rows_of(data)
    if rows is None:
        return (
            False,
            f"{type(data).__name__} computes its examples; storing them could freeze a random "
            "transform",
        )
    size, free = rows.num_bytes(), device.free_bytes()
    # Data that lies in the device's memory already stays there; a selection of it is copied.
    stays = device.is_cpu and not rows.is_mapped and rows.indices is None
    if not stays and free is not None and size > _RESIDENT_SHARE * free:
        return (
            False,
            f"{size / 2**20:,.0f} MiB are more than {_RESIDENT_SHARE:.0%} of the "
            f"{free / 2**20:,.0f} MiB free",
        )
    return True, f"{size / 2**20:,.1f} MiB lie in {'mapped files' if rows.is_mapped else 'tensors'}"


def why_streamed(data: Any, collate: Any, device: Device) -> str | None:
    """Returns why a ring is the better feed by default, or None if the data is kept on the
    device."""
    possible, reason = can_be_resident(data, collate, device)
    rows = rows_of(data)
    if possible and device.is_cpu and rows is not None and rows.is_mapped:
        return f"{reason}, which are read in place: a ring announces a batch's rows to the disk"
    return None if possible else reason


def _as_tensor(indices: np.ndarray) -> torch.Tensor:
    # A copy: orders are read-only and shared, but torch wants to own memory that it might write to.
    return torch.from_numpy(indices.copy())
