"""Evaluates a model: the objective over every example of a set once, in evaluation mode."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from volano.data import Feed, counter_hash, in_sequence
from volano.device import Device, Ranks
from volano.errors import RunError
from volano.task import Task, as_loss, num_examples, split
from volano.task.calls import called
from volano.training.memory.out_of_memory import repeated

EVALUATION_SEEDS = 13  # first counter of the seeds of objectives that draw noise


def evaluate(
    task: Task,
    model: nn.Module,
    data: Any,
    feed: Feed,
    device: Device,
    *,
    precision: str,
    micro_batch: int | None = None,
    may_split: bool = False,
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """Returns ``loss`` and the objective's metrics, each a mean weighted by ``Loss.weight``. Reads
    the device once, at the end.

    Every module is left in the mode in which it was. Several ranks take batches in turn; each
    example counts once. Parts of weight zero count nothing; if all are, there is no mean, and
    each is NaN.

    Args:
        task: whose objective.
        model: the model that is evaluated.
        data: the set.
        feed: the feed of it.
        device: the device to compute on.
        precision: the plan's.
        micro_batch: examples of a forward pass; None is the whole batch. Ranks of a sharded model
            pass forward together, and their batches may differ in size: there it is None.
        may_split: whether a batch that runs out of memory, and those after it, are passed in
            halves.
        ranks: the ranks with which this process evaluates together.
    """
    ranks = ranks or Ranks()
    passes = _Passes(task, model, device, micro_batch, may_split)
    rows: list[tuple[Any, Any, Mapping[str, Any]]] = []
    keys = list(in_sequence(len(data), task.batch_size))
    # As many rounds for each rank, for ranks of a sharded model work together: one without a batch
    # takes the first.
    turns = range(
        ranks.rank, -(-len(keys) // ranks.world_size) * ranks.world_size, ranks.world_size
    )
    mine = [turn if turn < len(keys) else 0 for turn in turns]
    # The last batch is smaller, and padded ones are all of other lengths.
    shapes = device.attention_for_any_shape()
    with modes_kept(model), torch.no_grad(), device.autocast(precision), shapes:
        model.eval()
        batches = feed.batches(keys[index] for index in mine)
        for turn, index, batch in zip(turns, mine, batches, strict=True):
            found = passes.rows(batch, index, len(keys[index].indices))
            if turn == index:
                rows += found
    names = ranks.union(list(passes.names))
    values = [
        [weight, total, *(metrics.get(name, math.nan) for name in names)]
        for weight, total, metrics in rows
    ]
    lacks = [[False, False, *(name not in metrics for name in names)] for *_, metrics in rows]
    sums = sums_of(read_scalars(values), 2 + len(names), lacks)
    return means_of(ranks.add_up(torch.tensor(sums, dtype=torch.float64)).tolist(), names)


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """A context after which every module is in the mode in which it was: one by one, for a person
    may have frozen some of them."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def sums_of(
    rows: list[list[float]], num_columns: int, lacks: list[list[bool]] | None = None
) -> list[float]:
    """Sums the rows of an evaluation: weight, total, and metrics.

    Args:
        rows: of each part its weight, total, and metrics; parts of weight 0 count nothing.
        num_columns: of a row.
        lacks: for each value of a row, whether its part does not have it; None: all have all.

    Returns:
        Weight and total, then for each metric the weight of the parts that have it, and the sum of
        the metric times the weight over these.
    """
    having = [
        (row, absent)
        for row, absent in zip(rows, lacks or [[False] * num_columns] * len(rows), strict=True)
        if row[0]
    ]
    sums = [math.fsum(row[0] for row, _ in having), math.fsum(row[1] for row, _ in having)]
    for column in range(2, num_columns):
        own = [row for row, absent in having if not absent[column]]
        sums += [math.fsum(row[0] for row in own), math.fsum(row[0] * row[column] for row in own)]
    return sums


def means_of(sums: list[float], names: list[str]) -> dict[str, float]:
    """Divides the sums of :func:`sums_of` by their weights: ``loss``, and each metric over the
    parts that have it; NaN if nothing has a weight."""
    pairs = zip(("loss", *names), sums[::2], sums[1::2], strict=True)
    return {name: total / weight if weight else math.nan for name, weight, total in pairs}


class _Passes:
    """Passes batches forward, in parts of a size that fits into the memory."""

    def __init__(
        self, task: Task, model: nn.Module, device: Device, micro_batch: int | None, may_split: bool
    ) -> None:
        self._task, self._model, self._device = task, model, device
        self._size, self._may_split = micro_batch, may_split
        self.names: dict[str, None] = {}  # of metrics, in the order in which they came

    def rows(self, batch: Any, index: int, count: int) -> list[tuple[Any, Any, Mapping[str, Any]]]:
        """Returns for each part its weight, its total, and its metrics by name. ``count`` is the
        number of examples of the batch, which need not lie along a dimension of it."""
        if not self._may_split:
            return self._rows(batch, index, count)
        return repeated(
            lambda: self._rows(batch, index, count), lambda reason: self._relieve(count, reason)
        )

    def _relieve(self, count: int, reason: str) -> None:
        size = min(self._size or count, count)
        if size == 1:
            raise RunError("An example must fit into the memory in evaluation", got=reason,
                           remedy="Train a smaller model, or on a larger device")  # fmt: skip
        self._size = size // 2
        self._device.release_memory()

    def _rows(self, batch: Any, index: int, count: int) -> list[tuple[Any, Any, Mapping[str, Any]]]:
        self._device.seed(counter_hash(EVALUATION_SEEDS, self._task.seed, index))
        rows: list[tuple[Any, Any, Mapping[str, Any]]] = []
        is_whole = self._size is None or self._size >= count
        for part in [batch] if is_whole else split(batch, self._size or count):
            with called("objective"):
                result = self._task.objective(self._model, part)
            loss = as_loss(result, count if is_whole else num_examples(part))
            self.names.update(dict.fromkeys(loss.metrics))
            rows.append((loss.weight, loss.total, loss.metrics))
        return rows


def read_scalars(rows: list[list[Any]]) -> list[list[Any]]:
    """Returns numbers and scalar tensors as floats, with one read of the device for all of them;
    None stays."""
    tensors = [value for row in rows for value in row if isinstance(value, torch.Tensor)]
    flat = iter(
        torch.stack([tensor.detach().reshape(()).float() for tensor in tensors]).tolist()
        if tensors
        else []
    )

    def read(value: Any) -> float | None:
        if isinstance(value, torch.Tensor):
            return next(flat)
        return None if value is None else float(value)

    return [[read(value) for value in row] for row in rows]
