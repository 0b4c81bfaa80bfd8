"""The tasks that are compared: the applications on their embedded samples, and small nets for a
pack."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from volano.apps.kinds import APPLICATIONS, application_class
from volano.data import Arrays
from volano.task import Task

NUM_MEMBERS = 16
# A text model of a size that minutes on a processor suffice for.
_OPTIONS: dict[str, dict[str, Any]] = {"text": {"depth": 3, "batch_size": 8}}


@contextlib.contextmanager
def embedded_task(kind: str, num_steps: int) -> Iterator[Task]:
    """Yields the task of an application on its embedded sample; its files last as long."""
    application = application_class(kind)
    options = APPLICATIONS[kind](**_OPTIONS.get(kind, {}))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) if application.needs_scratch else None
        yield bare(application.read(options, place).task(num_steps), num_steps)


def bare(task: Task, num_steps: int) -> Task:
    """Returns a task of so many steps that is trained and not looked at."""
    return dataclasses.replace(
        task, duration=f"{num_steps}st", evaluate_every=f"{num_steps}st", valid=None, preview=None
    )


def pack_tasks(num_steps: int) -> list[Task]:
    """Returns small nets on scikit-learn's digits that differ in their learning rate."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    data = Arrays((torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)))
    return [
        Task(
            model=_make_net, objective=_cross_entropy, data=data, batch_size=64,
            optimizer=functools.partial(torch.optim.AdamW, lr=1e-3 * 1.2**number),
            duration=f"{num_steps}st", data_seed=0, name="pack",
        )
        for number in range(NUM_MEMBERS)
    ]  # fmt: skip


def _make_net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    pixels, labels = batch
    return nn.functional.cross_entropy(model(pixels), labels)
