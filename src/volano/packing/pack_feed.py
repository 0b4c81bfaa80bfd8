"""The feed of a pack: one batch for all members that stand at the same step of the same order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from volano.data import Feed, Order, Quarantine, make_feed
from volano.device import Device
from volano.packing.refusal import NotPackable
from volano.plan import Plan
from volano.planner.search.choose_feed import choose_feed
from volano.task import Batch, Task, map_tensors, tensors_of


class FeedPlace(NamedTuple):
    """The place of a member in the data."""

    order_seed: int
    step: int


class PackBatch(NamedTuple):
    """The batches of one step.

    Attributes:
        distinct: batches on the device, each once.
        of_member: the position of each member's batch in ``distinct``.
    """

    distinct: list[Batch]
    of_member: tuple[int, ...]

    @property
    def is_shared(self) -> bool:
        """The answer whether all members see the same batch."""
        return len(self.distinct) == 1

    def of(self, member: int) -> Batch:
        """Returns the batch of a member."""
        return self.distinct[self.of_member[member]]

    def own(self, member: int) -> Batch:
        """Returns the batch of a member in tensors that no other member is given: alone a member
        has a batch to itself, and its code may write into that in place without affecting
        others."""
        is_only = self.of_member.count(self.of_member[member]) == 1
        return self.of(member) if is_only else copy_of(self.of(member))

    def copy(self) -> PackBatch:
        """Copies the batches into tensors of their own."""
        return PackBatch([copy_of(batch) for batch in self.distinct], self.of_member)

    def stacked(self) -> Batch:
        """Stacks the members' batches into one tree of tensors [K, ...].

        Raises:
            NotPackable: the batches have leaves that are not tensors, or do not have the same
                shapes.
        """
        if len({shape_of(batch) for batch in self.distinct}) > 1:
            raise NotPackable("batches of several shapes at one step")
        trees = [list(tensors_of(batch)) for batch in self.distinct]
        positions = iter(range(len(trees[0])))

        def stack(_: Tensor) -> Tensor:
            index = next(positions)
            return torch.stack([trees[place][index] for place in self.of_member])

        return map_tensors(stack, self.distinct[0])


def copy_of(batch: Batch) -> Batch:
    """Returns a batch in tensors of its own."""
    return map_tensors(torch.clone, batch)


def shape_of(batch: Batch) -> tuple[Any, ...] | None:
    """Returns the key of a batch's program: the tree, with the shapes and types of its tensors.

    Raises:
        NotPackable: a leaf is no tensor; its value would become a part of the program.
    """
    if isinstance(batch, Tensor):
        return tuple(batch.shape), batch.dtype
    if isinstance(batch, Mapping):
        return tuple((name, shape_of(item)) for name, item in batch.items())
    if isinstance(batch, tuple | list):
        return tuple(shape_of(item) for item in batch)
    if batch is None:
        return None
    raise NotPackable(f"batches with a leaf that is no tensor ({type(batch).__name__})")


class PackFeed:
    """The feed of a pack's members; see :class:`PackBatch`.

    Args:
        task: the task of any member; all have the same data.
        plan: the plan, with the device.
        on_notice: called with notices about the feeding.
    """

    def __init__(
        self, task: Task, plan: Plan, device: Device, on_notice: Callable[[str], None]
    ) -> None:
        self._task, self._device, self._on_notice = task, device, on_notice
        self._plan, _ = choose_feed(task, plan, {})
        self._feeds: dict[int, Feed] = {}

    def batches(
        self, places: Sequence[FeedPlace], num_steps: int
    ) -> Generator[PackBatch, None, None]:
        """Returns the batches of the next ``num_steps`` steps of members that stand at
        ``places``."""
        distinct = list(dict.fromkeys(places))
        of_member = tuple(distinct.index(place) for place in places)
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(contextlib.closing(self._stream(place, num_steps)))
                for place in distinct
            ]
            for batches in zip(*streams, strict=True):
                yield PackBatch(list(batches), of_member)

    def first_batches(self, places: Sequence[FeedPlace], num_steps: int) -> list[PackBatch]:
        """Returns the batches of the next ``num_steps`` steps in a list."""
        with contextlib.closing(self.batches(places, num_steps)) as batches:
            return list(batches)

    def part_of_valid(self) -> tuple[Any, Feed] | None:
        """Returns two batches of the validation set, which show if a program keeps something of the
        first, and its feed."""
        valid = self._task.valid
        if valid is None:
            return None
        part = range(min(len(valid), 2 * self._task.batch_size))  # only its length is asked
        return part, self.feed_of(valid, self._task.order_seed)

    def _stream(self, place: FeedPlace, num_steps: int) -> Any:
        task = self._task
        order = Order(
            num_examples=len(task.data),
            batch_size=task.batch_size,
            seed=place.order_seed,
            keep_last=task.last_batch == "keep",
        )
        return self._feed(place.order_seed).batches(order.keys(place.step, place.step + num_steps))

    def _feed(self, seed: int) -> Feed:
        # Data on the device is read in any order; examples made on the host may draw from the seed.
        key = -1 if self._plan.feed == "resident" else seed
        if key not in self._feeds:
            self._feeds[key] = self.feed_of(self._task.data, seed)
        return self._feeds[key]

    def feed_of(self, data: Any, seed: int) -> Feed:
        """Returns the feed of a set."""
        feed = make_feed(
            data,
            self._task.collate,
            self._device,
            feed=self._plan.feed,
            workers=self._plan.workers,
            prefetch=self._plan.prefetch,
            seed=seed,
            quarantine=Quarantine(len(data)),
        )
        feed.on_notice = self._on_notice
        return feed
