"""The order in which the examples are visited: a pure function of (seed, epoch, number of
examples).

It depends neither on workers, ranks nor micro-batches, so that the whole state of a feed is its
step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from volano.data.counters import counter_hash, counter_hashes
from volano.task import Task

ORDER_VERSION = 1
_ORDER, _EXAMPLE, _SUBSTITUTE = 1, 2, 3  # first counters: the purpose of a number


class Key(NamedTuple):
    """The key of one step for a feed: the epoch, and indices int64 [examples] into the data."""

    epoch: int
    indices: np.ndarray


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns epoch ``epoch``'s order, int64 [num_examples], read-only: the indices sorted by a
    64-bit hash of each."""
    keys = counter_hashes((_ORDER, seed, epoch), num_examples)
    order = np.argsort(keys, kind="stable")
    order.flags.writeable = False
    return order


@dataclass(frozen=True, kw_only=True)
class Order:
    """The batches of a run. Global batch ``g`` of an epoch is ``permutation[g * B : (g + 1) * B]``.

    Attributes:
        num_examples: number of examples in the data.
        batch_size: examples of a global batch.
        seed: the task's seed.
        keep_last: whether an epoch's incomplete last batch is visited.
    """

    num_examples: int
    batch_size: int
    seed: int
    keep_last: bool = False

    @classmethod
    def of(cls, task: Task) -> Order:
        """Returns the order in which a task's run visits its data."""
        return cls(
            num_examples=len(task.data),
            batch_size=task.batch_size,
            seed=task.order_seed,
            keep_last=task.last_batch == "keep",
        )

    @property
    def steps_per_epoch(self) -> int:
        """The global batches in one epoch."""
        full, rest = divmod(self.num_examples, self.batch_size)
        return full + (1 if rest and self.keep_last else 0)

    def key(self, step: int, *, rank: int = 0, world_size: int = 1) -> Key:
        """Returns the key of rank ``rank`` of ``world_size`` for optimizer step ``step`` of the
        run: every ``world_size``-th example of the global batch."""
        return next(self.keys(step, step + 1, rank=rank, world_size=world_size))

    def keys(self, start: int, stop: int, *, rank: int = 0, world_size: int = 1) -> Iterator[Key]:
        """Yields the keys of steps ``start`` to ``stop - 1``; see :meth:`key`."""
        # The epoch's order is held here: a pack goes through one order for each member at a time,
        # more than the cache keeps.
        held, order = -1, np.empty(0, dtype=np.int64)
        for step in range(start, stop):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if epoch != held:
                held, order = epoch, permutation(self.seed, epoch, self.num_examples)
            first = batch * self.batch_size
            yield Key(epoch, order[first : first + self.batch_size][rank::world_size])

    def first_keys(self, stop: int) -> Iterator[Key]:
        """Yields the keys of the steps before ``stop`` that hold an example that none before them
        held."""
        is_seen = np.zeros(self.num_examples, dtype=bool)
        for key in self.keys(0, stop):
            if not is_seen[key.indices].all():
                is_seen[key.indices] = True
                yield key
            elif is_seen.all():
                return


def in_sequence(num_examples: int, batch_size: int) -> Iterator[Key]:
    """Yields every example once, from first to last: the order of an evaluation."""
    for start in range(0, num_examples, batch_size):
        yield Key(0, np.arange(start, min(start + batch_size, num_examples), dtype=np.int64))


def example_seed(seed: int, epoch: int, index: int) -> int:
    """Returns the seed of the randomness with which an example is made, the same in every
    process."""
    return counter_hash(_EXAMPLE, seed, epoch, index)


def substitute(seed: int, epoch: int, index: int, attempt: int, num_examples: int) -> int:
    """Returns the index that stands in for a corrupt example, at the ``attempt``-th attempt."""
    return counter_hash(_SUBSTITUTE, seed, epoch, index, attempt) % num_examples
