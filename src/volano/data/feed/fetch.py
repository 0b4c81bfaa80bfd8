"""Makes a batch from a dataset on the host: fetches the examples, puts corrupt ones aside,
collates.

A batch is a pure function of (data, seed, epoch, indices): every worker makes the same one, random
transforms and substitutes included.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from volano.data.arrays import Rows, rows_of
from volano.data.feed.slots import SlotWriter, fits_a_slot, is_plain_batch
from volano.data.order import Key, Order, example_seed, substitute
from volano.device.torch_private import collate_by_type, default_collate_fn_map
from volano.errors import DataError
from volano.task import Batch, Task, map_tensors, num_bytes

_MAX_ATTEMPTS = 20
# Reading a row from the page cache takes 0.1 microseconds, announcing it 1, reading it from a disk
# 100.
_DISK_SECONDS_PER_ROW = 1e-5
# After a disk was read, so many more batches are announced: rows that are announced in time are as
# fast as cached ones.
_BATCHES_ANNOUNCED = 64


@dataclass(frozen=True, slots=True)
class Fault:
    """A corrupt example: its index, its place if the data reports it, and why it could not be
    used."""

    index: int
    path: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.path or f'example {self.index}'}: {self.reason}"


class Fetched(NamedTuple):
    """A batch on the host, and the examples that had to be replaced in it."""

    batch: Batch
    faults: list[Fault]


class Fetcher:
    """A fetcher and collator of batches; it is sent to worker processes.

    Args:
        data: the map-style dataset.
        collate: ``(list of examples) -> batch``; None is torch's ``default_collate``.
        seed: the task's seed; random transforms that use the global generators of ``random``, NumPy
            or torch are seeded per example from it.
    """

    def __init__(self, data: Any, collate: Callable[[list[Any]], Batch] | None, seed: int) -> None:
        self._data = data
        self._collate = collate
        self._seed = seed
        self._rows = rows_of(data) if collate is None else None
        self._is_random = False
        self._to_announce = 0
        self._is_told_ahead = False

    def expect(self, key: Key) -> None:
        """Tells a disk that the rows of a key will be read a few batches later, if they are read
        from a disk."""
        if self._rows is not None and self._rows.announce is not None:
            self._is_told_ahead = True
            if self._to_announce:
                self._rows.announce(self._rows.picked(torch.from_numpy(np.array(key.indices))))

    @property
    def parts(self) -> dict[str, Any]:
        """Returns what a worker process needs, by the names that users know."""
        return {"data": self._data, "collate": self._collate}

    def __call__(self, key: Key, slot: SlotWriter | None = None) -> Fetched:
        """Returns the batch of a key; its tensors are made in the slot if that is possible.

        Raises:
            DataError: no substitute for a corrupt example could be read, or ``collate`` failed.
        """
        if self._rows is not None:  # plain tensors: nothing is random, no example is corrupt
            indices = self._rows.picked(torch.from_numpy(np.array(key.indices)))
            return Fetched(self._gathered(self._rows, indices, slot), [])
        faults: list[Fault] = []
        with _KeepRandomState() as state:
            examples = None if self._is_random else self._fetch_plainly(key, state)
            if examples is None:
                examples = [self._fetch_one(key.epoch, int(index), faults) for index in key.indices]
            return Fetched(self._collated(examples, key, slot), faults)

    def _gathered(self, rows: Rows, indices: Tensor, slot: SlotWriter | None) -> Batch:
        if rows.announce is None:
            return map_tensors(lambda tensor: _take(tensor, indices, slot), rows.tree)
        start = time.perf_counter()
        if self._to_announce and not self._is_told_ahead:
            rows.announce(indices)
        batch = map_tensors(lambda tensor: _take(tensor, indices, slot), rows.tree)
        is_slow = time.perf_counter() - start > _DISK_SECONDS_PER_ROW * len(indices)
        self._to_announce = _BATCHES_ANNOUNCED if is_slow else max(0, self._to_announce - 1)
        return batch

    def _fetch_plainly(self, key: Key, state: _KeepRandomState) -> list[Any] | None:
        # Seeding costs more than a small example does. Data that draws nothing needs no seeds, and
        # whether it drew is checked afterwards; the answer None means: do it again, example by
        # example.
        indices = key.indices.tolist()
        try:
            fetch_many = getattr(self._data, "__getitems__", None)
            if fetch_many is None:
                examples = [self._data[index] for index in indices]
            else:
                examples = list(fetch_many(indices))
        except Exception as error:  # noqa: BLE001 - a user's dataset may raise anything; the faulty example is named next
            _raise_if_memory_ran_out(error)
            return None
        if state.has_changed():
            self._is_random = True
            return None
        if len(examples) != len(indices):
            raise DataError(
                "`__getitems__` of the data must return one example for each index",
                got=f"{len(examples):,} for {len(indices):,} indices",
                remedy="Mend or remove it: `__getitem__` is enough",
            )
        return examples

    def _fetch_one(self, epoch: int, index: int, faults: list[Fault]) -> Any:
        candidate = index
        for attempt in range(_MAX_ATTEMPTS):
            _seed_generators(example_seed(self._seed, epoch, candidate))
            try:
                return self._data[candidate]
            except Exception as error:  # noqa: BLE001 - any error of a user's dataset makes the example corrupt
                _raise_if_memory_ran_out(error)
                path = getattr(self._data, "path_of", lambda _: None)(candidate)
                faults.append(Fault(candidate, path, f"{type(error).__name__}: {error}"))
                candidate = substitute(self._seed, epoch, index, attempt, len(self._data))
        raise DataError(
            f"A corrupt example is replaced by another, but {_MAX_ATTEMPTS} in a row were corrupt",
            got=f"example {faults[-1].index}: {faults[-1].reason}",
            remedy="Look at data[index] for one of them",
        )

    def _collated(self, examples: list[Any], key: Key, slot: SlotWriter | None) -> Batch:
        try:
            if self._collate is not None:
                return self._collate(examples)
            if slot is None or not is_plain_batch(examples[0]):
                return collate_by_type(examples, collate_fn_map=default_collate_fn_map)
            stack = functools.partial(_stack, slot)
            return collate_by_type(
                examples, collate_fn_map={**default_collate_fn_map, Tensor: stack}
            )
        except Exception as error:
            _raise_if_memory_ran_out(error)
            ids = ", ".join(map(str, key.indices[:8].tolist()))
            raise DataError(
                "The examples of a batch must have the same structure and shapes to be collated",
                got=f"{type(error).__name__}: {error} (examples "
                f"{ids}{', ...' if len(key.indices) > 8 else ''})",
                remedy="Make them equal in shape, or give the task a `collate` function of its own",
            ) from error


def first_batches(task: Task, *, seconds: float = 0.5) -> tuple[Batch, ...]:
    """Returns a run's first four global batches on the host, the one with the most bytes first.

    Padded batches differ in size, and a step that fits the largest fits the others. There are fewer
    if they take more than ``seconds`` to make. A corrupt example is replaced, as in the run.
    """
    order = Order.of(task)
    order = dataclasses.replace(order, batch_size=min(order.batch_size, order.num_examples))
    fetcher, batches = Fetcher(task.data, task.collate, task.order_seed), []
    end = time.perf_counter() + seconds
    for key in order.keys(0, min(4, task.num_steps)):
        batches.append(fetcher(key).batch)
        if time.perf_counter() > end:
            break
    return tuple(sorted(batches, key=num_bytes, reverse=True))


def _raise_if_memory_ran_out(error: Exception) -> None:
    # Lack of memory is not a fault of an example: a substitute would hide it. On the CPU torch
    # reports it only in words.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator: " in str(
        error
    ):
        raise error


def _take(tensor: Tensor, indices: Tensor, slot: SlotWriter | None) -> Tensor:
    out = None
    if slot is not None and tensor.is_cpu and not tensor.requires_grad:
        out = slot.empty((len(indices), *tensor.shape[1:]), tensor.dtype)
    if out is None:
        return tensor.index_select(0, indices.to(tensor.device))
    return torch.index_select(tensor, 0, indices, out=out)


def _stack(slot: SlotWriter, tensors: list[Tensor], **others: Any) -> Tensor:
    # The same as torch's own function for a list of tensors, into memory that exists already.
    first = tensors[0]
    if all(
        tensor.shape == first.shape and tensor.dtype == first.dtype and fits_a_slot(tensor)
        for tensor in tensors
    ):
        out = slot.empty((len(tensors), *first.shape), first.dtype)
        if out is not None:
            return torch.stack(tensors, out=out)
    return default_collate_fn_map[Tensor](tensors, **others)


class _KeepRandomState:
    """A context that restores the host's global generators: data fetched in the training process
    must not move the model's draws."""

    def __enter__(self) -> _KeepRandomState:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        if self.has_changed():
            python, numpy, host = self._before
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_rng_state(host)

    def has_changed(self) -> bool:
        """Checks whether anything was drawn or seeded since."""
        python, numpy, host = self._now()
        old_python, old_numpy, old_host = self._before
        return (
            python != old_python
            or numpy[2:] != old_numpy[2:]
            or not np.array_equal(numpy[1], old_numpy[1])
            or not torch.equal(host, old_host)
        )

    @staticmethod
    def _now() -> tuple[Any, Any, Any]:
        return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
