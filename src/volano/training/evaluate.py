"""Evaluation: the objective over every example of a set once, in evaluation mode."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from volano.data import Feed, counter_hash, in_sequence
from volano.device import Device, Ranks
from volano.task import Task, as_loss, num_examples, split

_EVALUATION = 13  # first counter of the seeds of objectives that draw noise


def evaluate(
    task: Task,
    model: nn.Module,
    data: Any,
    feed: Feed,
    device: Device,
    *,
    precision: str,
    micro_batch: int | None = None,
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """``loss`` and the objective's metrics, each a mean weighted by ``Loss.weight``. Reads the device once, at the end.

    Every module is left in the mode in which it was. Several ranks take batches in turn; each example counts once. A
    plan that trains in micro-batches for want of memory evaluates in them too, where there is one process: ranks of a
    sharded model pass forward together, and their batches may differ in size.
    """
    ranks = ranks or Ranks()
    micro_batch = None if ranks.are_several else micro_batch
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    rows: list[list[Any]] = []
    names: list[str] = []
    keys = list(in_sequence(len(data), task.batch_size))
    # As many rounds for each rank, for ranks of a sharded model work together: one without a batch takes the first.
    turns = range(ranks.rank, -(-len(keys) // ranks.world_size) * ranks.world_size, ranks.world_size)
    mine = [turn if turn < len(keys) else 0 for turn in turns]
    try:
        with torch.no_grad(), device.autocast(precision):
            for turn, index, batch in zip(turns, mine, feed.batches(keys[index] for index in mine), strict=True):
                device.seed(counter_hash(_EVALUATION, task.seed, index))
                for part in split(batch, micro_batch or num_examples(batch)):
                    loss = as_loss(task.objective(model, part), num_examples(part))
                    names = list(loss.metrics)
                    if turn == index:
                        rows.append([loss.weight, loss.total, *loss.metrics.values()])
    finally:
        for module, was_training in modes:  # one by one: a person may have frozen some of them
            module.training = was_training
    values = read_scalars(rows)
    sums = [math.fsum(row[0] for row in values), math.fsum(row[1] for row in values)]
    sums += [math.fsum(row[0] * row[column] for row in values) for column in range(2, 2 + len(names))]
    weight, *totals = ranks.add_up(torch.tensor(sums, dtype=torch.float64)).tolist()
    return {name: total / weight for name, total in zip(("loss", *names), totals, strict=True)}


def read_scalars(rows: list[list[Any]]) -> list[list[float]]:
    """Numbers and scalar tensors as floats, with one read of the device for all of them."""
    tensors = [value for row in rows for value in row if isinstance(value, torch.Tensor)]
    flat = iter(torch.stack([tensor.detach().reshape(()).float() for tensor in tensors]).tolist() if tensors else [])
    return [[next(flat) if isinstance(value, torch.Tensor) else float(value) for value in row] for row in rows]
