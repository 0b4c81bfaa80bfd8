"""Feeds: keys in, batches on the device out. Two of them, one contract; both give bitwise the same batches."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from volano.data.arrays import take, tensor_tree
from volano.data.fetch import Fetched, Fetcher
from volano.data.order import Key, in_sequence
from volano.data.quarantine import Quarantine
from volano.device import Device, Transfer
from volano.errors import PlanError, VolanoError
from volano.task import Batch, num_bytes, num_examples

# Share of the device's free memory that resident data may take; the rest is for the training.
_RESIDENT_SHARE = 0.4
# Indices of this many batches go to the device in one copy.
_KEYS_PER_COPY = 64
# A worker process costs an exchange per batch; below this it costs more than it takes off the training process.
_WORKER_PAYS_FROM_SECONDS = 2e-3


class Feed(ABC):
    """Gives the batches of a sequence of keys, in that order, on the device."""

    @abstractmethod
    def batches(self, keys: Iterable[Key]) -> Iterator[Batch]:
        """One batch a key. The iterator ends with the keys; closing it early frees what it holds."""


class ResidentFeed(Feed):
    """The encoded set lies on the device; a batch is gathered there. No worker, no copy of examples in the loop."""

    def __init__(self, tree: Batch, device: Device) -> None:
        self._tree = device.move(tree)
        self._device = device

    def batches(self, keys: Iterable[Key]) -> Iterator[Batch]:
        """See :class:`Feed`."""
        if self._device.is_cpu:
            for key in keys:
                yield take(self._tree, _as_tensor(key.indices))
            return
        keys = iter(keys)
        while group := list(itertools.islice(keys, _KEYS_PER_COPY)):
            joined = _as_tensor(np.concatenate([key.indices for key in group]))
            if self._device.can_pin:  # from pageable memory the copy would wait for what is queued
                joined = joined.pin_memory()
            joined = self._device.move(joined, non_blocking=True)
            for indices in joined.split([len(key.indices) for key in group]):
                yield take(self._tree, indices)


class RingFeed(Feed):
    """Host workers fetch and collate; each batch is copied to the device while the one before it is used."""

    def __init__(
        self, fetcher: Fetcher, device: Device, quarantine: Quarantine, *, workers: int = 0, prefetch: int = 2
    ) -> None:
        self._fetcher = fetcher
        self._device = device
        self._quarantine = quarantine
        self._workers = workers
        self._prefetch = prefetch

    def batches(self, keys: Iterable[Key]) -> Iterator[Batch]:
        """See :class:`Feed`."""
        transfer = Transfer(self._device)
        ahead = None
        with contextlib.closing(self._fetched(keys)) as fetched:  # whatever happens, the workers end
            for item in fetched:
                pending = transfer.start(self._checked(item))
                if ahead is not None:
                    yield transfer.finish(ahead)
                ahead = pending
        if ahead is not None:
            yield transfer.finish(ahead)

    def _fetched(self, keys: Iterable[Key]) -> Generator[Fetched | VolanoError, None, None]:
        if not self._workers and not self._device.can_pin:
            yield from map(self._fetcher, keys)
            return
        options: dict[str, Any] = {}
        if self._workers:
            options = {
                "prefetch_factor": self._prefetch,
                "multiprocessing_context": _start_method(),
                "worker_init_fn": _leave_signals_to_the_parent,
            }
        batches = iter(
            DataLoader(
                _ByKey(self._fetcher),
                sampler=_Keys(keys),
                batch_size=None,
                collate_fn=_unchanged,  # pyright: ignore[reportArgumentType] - typed for lists; here it sees one item
                num_workers=self._workers,
                pin_memory=self._device.can_pin,
                generator=torch.Generator(),  # it draws a seed that nobody uses; not from the caller's generator
                **options,
            )
        )
        try:
            yield from batches
        finally:
            del batches  # torch ends the workers when the last reference goes

    def _checked(self, item: Fetched | VolanoError) -> Batch:
        if isinstance(item, VolanoError):
            raise item
        batch, faults = item
        self._quarantine.add([*faults], num_examples(batch))
        return batch


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
    """The feed that a plan names.

    Raises:
        PlanError: ``feed="resident"`` for data that cannot be.
    """
    if feed == "resident":
        possible, reason = can_be_resident(data, collate, device)
        if not possible:
            raise PlanError("A resident feed needs data in tensors that fit", got=reason, remedy="Pin --feed ring")
        return ResidentFeed(tensor_tree(data), device)
    return RingFeed(Fetcher(data, collate, seed), device, quarantine, workers=workers, prefetch=prefetch)


def can_be_resident(data: Any, collate: Any, device: Device) -> tuple[bool, str]:
    """Whether the data can be kept on the device without changing the experiment, and why."""
    if collate is not None:
        return False, "the task has a collate function of its own"
    tree = tensor_tree(data)
    if tree is None:
        return (
            False,
            f"{type(data).__name__} computes its examples; storing them could freeze a random transform",
        )
    size = num_bytes(tree)
    free = device.free_bytes()
    if not device.is_cpu and free is not None and size > _RESIDENT_SHARE * free:
        return (
            False,
            f"{size / 2**20:,.0f} MiB are more than {_RESIDENT_SHARE:.0%} of the {free / 2**20:,.0f} MiB free",
        )
    return True, f"{size / 2**20:,.1f} MiB lie in tensors"


def choose_workers(data: Any, collate: Any, batch_size: int, num_cores: int) -> tuple[int, float]:
    """Worker processes for a ring, and the measured seconds of making one batch in this process."""
    fetcher = Fetcher(data, collate, seed=0)
    key = next(iter(in_sequence(len(data), batch_size)))
    fetcher(key)
    start = time.perf_counter()
    fetcher(key)
    seconds = time.perf_counter() - start
    if seconds < _WORKER_PAYS_FROM_SECONDS:
        return 0, seconds
    return max(1, min(4, num_cores - 1)), seconds


class _ByKey(Dataset[Any]):
    """A fetcher as torch's DataLoader wants it."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def __getitem__(self, key: Any) -> Fetched | VolanoError:
        try:
            return self._fetcher(key)
        except VolanoError as error:  # torch would make one long text of it and its traceback
            return error


class _Keys:
    """A sampler over any iterable of keys."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = keys

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)


def _unchanged(item: Any) -> Any:
    return item


def _leave_signals_to_the_parent(_worker: int) -> None:
    # Ctrl-C reaches the whole process group; the step in flight still needs its batch. SIGTERM must end a worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _start_method() -> str | None:
    # fork carries lambdas and open data over without pickling; where it does not exist, torch's own choice stands.
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else None


def _as_tensor(indices: np.ndarray) -> torch.Tensor:
    # Orders are read-only and shared; torch wants to own what it might write to.
    return torch.from_numpy(indices.copy())
