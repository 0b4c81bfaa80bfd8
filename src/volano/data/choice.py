"""How many worker processes make a run's batches, measured on its own data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from volano.data.arrays import rows_of
from volano.data.fetch import Fetcher
from volano.data.order import Key, Order
from volano.data.workers import Workers, start_method
from volano.errors import VolanoError

# Measuring costs at most this share of what the run spends in making batches, and at most so long.
_SHARE, _MOST_SECONDS = 0.02, 2.0
# A worker takes the making off the training process and costs an exchange instead: it is to save half at least.
_EXCHANGE_SHARE = 0.5
# Another worker is to bring so much; on a machine that others use too, less is noise.
_GAIN = 1.15
_MOST_WORKERS, _BATCHES_PER_WORKER = 4, 3


@dataclass(frozen=True, kw_only=True)
class WorkerChoice:
    """How many workers, and the figures behind it in words."""

    workers: int
    reason: str


def choose_workers(data: Any, collate: Any, batch_size: int, num_cores: int, *, num_steps: int = 1000) -> WorkerChoice:
    """Measures how long a batch takes in this process and through workers, on batches of the data itself.

    The batches are made in worker processes, so that files which a dataset opens when first asked are not opened here.
    Nothing that goes wrong is raised: the run itself says it better.

    Args:
        data: map-style dataset.
        collate: the task's.
        batch_size: examples a batch.
        num_cores: that this process may use.
        num_steps: of the run; a short one is measured less.
    """
    order = Order(num_examples=len(data), batch_size=batch_size, seed=0, keep_last=True)
    fetcher = Fetcher(data, collate, seed=0)
    rows = rows_of(data)
    if rows is not None and not rows.is_mapped and collate is None:
        return _gathered(fetcher, order)
    if start_method() != "fork":
        start = time.perf_counter()
        with contextlib.suppress(VolanoError):
            fetcher(order.key(0))
        made = time.perf_counter() - start
        workers = min(_MOST_WORKERS, max(1, num_cores - 1)) if made > 2e-3 else 0
        return WorkerChoice(workers=workers, reason=f"a batch takes {_in_ms(made)} in this process")
    try:
        return _measured(fetcher, order, max(1, num_cores - 1), num_steps)
    except VolanoError as error:
        return WorkerChoice(workers=1, reason=f"not measured: {error.rule}; got {error.got}"[:200])


def _gathered(fetcher: Fetcher, order: Order) -> WorkerChoice:
    fetcher(order.key(0))
    start = time.perf_counter()
    fetcher(order.key(0))
    return WorkerChoice(workers=0, reason=f"gathering a batch takes {_in_ms(time.perf_counter() - start)}")


def _measured(fetcher: Fetcher, order: Order, most: int, num_steps: int) -> WorkerChoice:
    made, exchange = _one_worker(fetcher, order)
    here = f"a batch takes {_in_ms(made)} in this process"
    if exchange > _EXCHANGE_SHARE * made:
        return WorkerChoice(workers=0, reason=f"{here}, and its exchange with a worker {_in_ms(exchange)}")
    best, rate, figures = 1, 1 / made, f"{here}; the exchange with a worker takes {_in_ms(exchange)}"
    budget = min(_MOST_SECONDS, _SHARE * num_steps * made)
    for workers in range(2, min(most, _MOST_WORKERS) + 1):
        if (_BATCHES_PER_WORKER + 1) * made > budget:
            return WorkerChoice(workers=best, reason=f"{figures}; more workers were not tried in so short a run")
        budget -= (_BATCHES_PER_WORKER + 1) * made
        another = _batches_per_second(fetcher, order, workers)
        figures += f", through {workers} workers a batch {_in_ms(1 / another)}"
        if another < _GAIN * rate:
            break
        best, rate = workers, another
    return WorkerChoice(workers=best, reason=figures)


def _one_worker(fetcher: Fetcher, order: Order) -> tuple[float, float]:
    """Seconds of making a batch, and of receiving one that lies ready. The first batch of all opens files and fills
    caches; it is left out where there is another."""
    with _workers(fetcher, 1) as workers:
        made = workers.made(_keys(order, 3))
        seconds = next(made)[0].seconds
        if seconds < _MOST_SECONDS:
            seconds = next(made)[0].seconds
        time.sleep(min(1.5 * seconds, _MOST_SECONDS))
        start = time.perf_counter()
        for result, _ in made:
            return min(seconds, result.seconds), max(0.0, time.perf_counter() - start)
    raise AssertionError("a worker answers every key")


def _batches_per_second(fetcher: Fetcher, order: Order, num: int) -> float:
    with _workers(fetcher, num) as workers:
        made = workers.made(_keys(order, num * (_BATCHES_PER_WORKER + 1)))
        for _ in range(num):
            next(made)
        start, count = time.perf_counter(), 0
        for result, _ in made:
            if result.error is not None:
                raise result.error
            count += 1
        return count / (time.perf_counter() - start)


@contextlib.contextmanager
def _workers(fetcher: Fetcher, num: int) -> Iterator[Workers]:
    workers = Workers(fetcher, num=num, ahead=2 * num, on_notice=lambda _: None)
    try:
        yield workers
    finally:
        workers.close()


def _keys(order: Order, num: int) -> Iterator[Key]:
    return order.keys(0, num)


def _in_ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"
