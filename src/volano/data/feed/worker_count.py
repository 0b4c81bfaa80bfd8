"""Chooses how many worker processes make a run's batches, by measuring on its own data."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from volano.data.arrays import rows_of
from volano.data.feed.fetch import Fetcher
from volano.data.feed.slots import Slots, bytes_in_slot, can_share, unpacked, with_room
from volano.data.feed.workers import Made, Workers, check_pickles
from volano.data.order import Order
from volano.device import Device
from volano.device.start_processes import start_method
from volano.errors import DataError, VolanoError
from volano.record.format import ms_text

# Trials with two and more workers begin as long as their cost so far is below this share of the
# run's time for making batches, and below so many seconds. The first trial is made in any case:
# three batches and the wait for the third, or one batch if that takes seconds; a fourth is begun
# and dropped.
_SHARE, _MOST_SECONDS = 0.02, 2.0
# A worker takes the making of batches off the training process and costs an exchange instead: it
# must save at least half.
_EXCHANGE_SHARE = 0.5
# Another worker must gain so much; on a shared machine, less is noise.
_GAIN = 1.15
_BATCHES_PER_WORKER = 3
# Where the CPU trains, more workers take its cores from the training; where it feeds an
# accelerator, more than these rarely make more of a disk.
_MOST_BESIDE_TRAINING, _MOST_WORKERS = 4, 32
# If an exchange takes less than this share of making a batch, that many workers times faster are
# expected without a trial of each.
_FREE_EXCHANGE_SHARE = 0.2
# A forked process waits for ever for a lock that a thread held at the fork; a batch rarely takes a
# minute.
_PATIENCE_SECONDS = 60.0
# As in the ring: batches ahead of each worker, and further slots.
_PREFETCH, _SLOTS_BESIDE = 2, 3
# A few corrupt examples prove nothing; data that cannot live in a forked process fails there
# entirely.
_FAULTY_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class WorkerChoice:
    """The number of workers, and the figures behind it in words."""

    workers: int
    reason: str


def choose_workers(
    data: Any,
    collate: Any,
    batch_size: int,
    num_cores: int,
    *,
    num_steps: int = 1000,
    seed: int = 0,
    cpu_trains: bool = True,
) -> WorkerChoice:
    """Measures how long a batch takes in this process and through workers, on batches of the data
    itself.

    The batches are made in worker processes, so that files which a dataset opens at first use are
    not opened here. No error is raised: the run itself reports it better. Data that fails in a
    worker process, or gives no answer there, is fetched in the training process.

    Args:
        data: the map-style dataset.
        collate: the task's collate function.
        batch_size: examples of a batch.
        num_cores: number of cores that this process may use.
        num_steps: number of steps of the run; a short one is measured less.
        seed: the task's seed.
        cpu_trains: whether the model is trained on the cores that make the batches.
    """
    most = max(1, min(num_cores - 1, _MOST_BESIDE_TRAINING if cpu_trains else _MOST_WORKERS))
    order = Order(num_examples=len(data), batch_size=min(batch_size, len(data)), seed=seed)
    fetcher = Fetcher(data, collate, seed)
    rows = rows_of(data)
    try:
        if rows is not None and not rows.is_mapped and collate is None:
            return _gathered(fetcher, order)
        if rows is not None and rows.is_mapped and collate is None:
            # Measured on a set four times larger than the memory: 0.68 of the resident throughput
            # without a worker, 0.62 with one (docs/log.md).
            return WorkerChoice(
                workers=0, reason="the mapped rows of some batches are announced to the disk ahead"
            )
        if start_method() != "fork":
            return _guessed(fetcher, order, most)
        return _Trials(fetcher, order).choice(most, num_steps, cpu_trains=cpu_trains)
    except VolanoError as error:
        reason = f"{error.rule}; got {error.got}"
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        reason = f"{type(error).__name__}: {error}"
    return WorkerChoice(workers=0, reason=f"tried on a few batches: {reason}"[:300])


def _gathered(fetcher: Fetcher, order: Order) -> WorkerChoice:
    fetcher(order.key(0))
    start = time.perf_counter()
    fetcher(order.key(0))
    return WorkerChoice(
        workers=0, reason=f"gathering a batch takes {ms_text(time.perf_counter() - start)}"
    )


def _guessed(fetcher: Fetcher, order: Order, most: int) -> WorkerChoice:
    check_pickles(fetcher)
    start = time.perf_counter()
    fetcher(order.key(0))
    made = time.perf_counter() - start
    workers = most if made > 2e-3 else 0
    return WorkerChoice(workers=workers, reason=f"a batch takes {ms_text(made)} in this process")


class _Trials:
    """The trials of rings with more and more workers, each on batches after those of the trial
    before: files that one has read are in the page cache, and would flatter the next."""

    def __init__(self, fetcher: Fetcher, order: Order) -> None:
        self._fetcher = fetcher
        self._order = order
        self._step = 0

    def choice(self, most: int, num_steps: int, *, cpu_trains: bool) -> WorkerChoice:
        made, exchange = self._with_one()
        here = f"a batch takes {ms_text(made)} in this process"
        if exchange is not None and exchange > _EXCHANGE_SHARE * made:
            return WorkerChoice(
                workers=0, reason=f"{here}, and its exchange with a worker {ms_text(exchange)}"
            )
        beside = "is negligible" if exchange is None else f"takes {ms_text(exchange)}"
        figures = f"{here}; the exchange with a worker {beside}"
        if not cpu_trains and (exchange or 0.0) < _FREE_EXCHANGE_SHARE * made:
            # Its cores have nothing else to do. More workers than exchanges fit into the making of
            # a batch would wait for each other.
            workers = min(most, math.ceil(made / exchange)) if exchange else most
            return WorkerChoice(
                workers=workers, reason=f"{figures}; {workers} of at most {most} workers fill it"
            )
        best, rate = 1, 1 / made
        budget = min(_MOST_SECONDS, _SHARE * num_steps * made)
        for workers in range(2, most + 1):
            if (_BATCHES_PER_WORKER + 1) * made > budget:
                why = f"on batches that take {ms_text(made)} each"
                why = "in so short a run" if budget < _MOST_SECONDS else why
                return WorkerChoice(
                    workers=best, reason=f"{figures}; more workers were not tried {why}"
                )
            start = time.perf_counter()
            another = self._batches_per_second(workers)
            budget -= time.perf_counter() - start
            figures += f", through {workers} workers a batch {ms_text(1 / another)}"
            if another < _GAIN * rate:
                break
            best, rate = workers, another
        return WorkerChoice(workers=best, reason=figures)

    def _with_one(self) -> tuple[float, float | None]:
        """Returns the seconds of making a batch, and of receiving one that lies ready; None if a
        batch takes so long that the exchange cannot matter. The first batch of all opens files and
        fills caches; it is left out otherwise."""
        # The fourth is handed out when the third is received, as in the ring.
        results = self._made(1, 4)
        try:
            first = next(results).seconds
            if first >= _MOST_SECONDS:
                return first, None
            seconds = next(results).seconds
            pause = min(1.5 * seconds, _MOST_SECONDS)
            time.sleep(pause)
            start = time.perf_counter()
            third = next(results).seconds
            waited = time.perf_counter() - start
            return min(seconds, third), max(0.0, waited - max(0.0, third - pause))
        finally:
            results.close()

    def _batches_per_second(self, num: int) -> float:
        results = self._made(num, num * (_BATCHES_PER_WORKER + 1))
        try:
            for _ in range(num):
                next(results)
            start = time.perf_counter()
            return sum(1 for _ in results) / (time.perf_counter() - start)
        finally:
            results.close()

    def _made(self, num: int, count: int) -> Generator[Made, None, None]:
        """Yields ``count`` batches of ``num`` workers, in slots and touched as the ring does."""
        keys = self._order.keys(self._step, self._step + count)
        self._step += count
        ahead = _PREFETCH * num
        workers = Workers(
            self._fetcher,
            num=num,
            ahead=ahead,
            on_notice=lambda _: None,
            patience=_PATIENCE_SECONDS,
        )
        slots: Slots | None = None
        try:
            for made, filled in workers.made(keys):
                self._check(made)
                if filled is not None and made.slot is not None:
                    unpacked(made.batch, filled.memory(made.slot))
                elif slots is None and can_share() and (size := bytes_in_slot(made.batch)):
                    slots = Slots(
                        Device("cpu"), ahead + _SLOTS_BESIDE, with_room(size), shared=True
                    )
                    workers.use(slots)
                yield made
        finally:
            workers.close()
            if slots is not None:
                slots.close()

    def _check(self, made: Made) -> None:
        if made.error is not None:
            raise made.error
        if len(made.faults) > _FAULTY_SHARE * self._order.batch_size:
            raise DataError(
                "Examples must be fetchable in a worker process",
                got=f"{len(made.faults)} that cannot, example {made.faults[0].index}: "
                f"{made.faults[0].reason}",
            )
