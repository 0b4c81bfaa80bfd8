"""The kinds of trials that can share a pack, over a whole study: a new trial is compared with one
of each kind so far."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from volano.packing.structure.grouping import groups_of
from volano.task import Task
from volano.training import Session, make_optimizer


class BuiltTask(NamedTuple):
    """The material for comparing tasks: the task, and the model and the optimizer with which it
    begins."""

    task: Task
    model: nn.Module
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, task: Task) -> BuiltTask:
        """Builds a task. Seeds the host's generators.

        Raises:
            Exception: what making the model or its optimizer raises.
        """
        model = Session.make_model(task)
        return cls(task, model, make_optimizer(task, model))


class StructureIndex:
    """The kinds of tasks that a study has shown so far, numbered from 0; the first task of each is
    kept."""

    def __init__(self) -> None:
        self._firsts: list[BuiltTask] = []
        self._reasons: list[tuple[str, ...]] = []
        self._names: list[str] = []

    def of(self, specimens: Sequence[BuiltTask]) -> list[int]:
        """The kind of each; what is like none so far makes a new one."""
        known = len(self._firsts)
        together = [*self._firsts, *specimens]
        groups = groups_of(
            [built.task for built in together],
            [built.model for built in together],
            [built.optimizer for built in together],
        )
        kinds = [0] * len(together)
        for kind, group in enumerate(groups):
            for index in group.indices:
                kinds[index] = kind
        self._firsts = [together[group.indices[0]] for group in groups]
        self._reasons = [group.reasons for group in groups]
        for first in self._firsts[len(self._names) :]:
            digest = _digest(first)
            same = sum(name.split("-")[0] == digest for name in self._names)
            self._names.append(f"{digest}-{same + 1}" if same else digest)
        return kinds[known:]

    def first(self, kind: int) -> BuiltTask:
        """The one that the others of a kind are like."""
        return self._firsts[kind]

    def reasons(self, kind: int) -> tuple[str, ...]:
        """Returns why a kind differs from the others, in words; its own value comes first."""
        return self._reasons[kind]

    def name(self, kind: int) -> str:
        """Returns a name for a kind that is the same in every process. Numbers of kinds depend on
        the order in which a process met them."""
        return self._names[kind]


def _digest(built: BuiltTask) -> str:
    """Returns 8 hexadecimal digits of what structures differ by as a rule; those of one digest are
    compared."""
    task, model, optimizer = built
    modules = [
        (
            where,
            type(module).__qualname__,
            sorted((k, v) for k, v in vars(module).items() if type(v) in (int, str)),
        )
        for where, module in model.named_modules()
    ]
    leaves = [(where, tuple(leaf.shape), str(leaf.dtype)) for where,
    leaf in model.state_dict(keep_vars=True).items() if isinstance(leaf, torch.Tensor)]  # fmt: skip
    steps = (task.batch_size, task.last_batch, task.num_steps, task.evaluation_interval)
    text = repr((steps, type(optimizer).__qualname__, modules, leaves))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
