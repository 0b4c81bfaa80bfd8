"""Small tasks, and the groups that they come in."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from volano import Task
from volano.packing.structure.grouping import groups_of
from volano.training import Session

DATA = TensorDataset(
    torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
)
BATCH = (DATA.tensors[0][:8], DATA.tensors[1][:8])


def plain_objective(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


def plain_task(**fields: Any) -> Task:
    given = {
        "model": lambda: nn.Sequential(
            nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.1), nn.Linear(5, 3)
        ),
        "objective": plain_objective,
        "data": DATA,
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
        "batch_size": 8,
        "duration": "6st",
    }
    return Task(**{**given, **fields})


def grouped(*tasks: Task) -> Any:
    models = [Session.make_model(task) for task in tasks]
    optimizers = [
        task.optimizer(model.parameters()) for task, model in zip(tasks, models, strict=True)
    ]
    return groups_of(tasks, models, optimizers)
