"""The state that enters and leaves a pack, and a member as it would train alone: its module,
optimizer and average."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.packing.structure.side_effects import private_copy
from volano.plan import Plan
from volano.task import Task
from volano.training import Session, choose_implementation, make_optimizer
from volano.training.optim.ema import Ema


@dataclass(frozen=True, kw_only=True)
class Member:
    """A configuration of a pack.

    Attributes:
        number: the member's number; the trial's, in a study.
        task: the task that it trains.
        state: its training state: ``step``, ``model``, ``optimizer`` and ``ema`` as their
            ``state_dict``s (``ema`` is None without an average), on the host; None starts the
            member from its first step.
    """

    number: int
    task: Task
    state: dict[str, Any] | None = None

    def with_private_code(self) -> Member:
        """Returns the same member with copies of its own code, which may count its calls: these
        calls count for nothing."""
        objective, augment = private_copy(self.task.objective), private_copy(self.task.augment)
        return dataclasses.replace(
            self, task=dataclasses.replace(self.task, objective=objective, augment=augment)
        )


class MemberState:
    """The live objects of a member, made in the very order in which a training of its task makes
    them.

    Attributes:
        number, task: the member's number and task.
        num_steps: optimizer steps of its whole run.
        step: optimizer steps that it has made.
        model, optimizer, ema: the objects of a training alone; ``ema`` is None without an average.
    """

    def __init__(self, member: Member, plan: Plan, device: Device) -> None:
        self.number, self.task = member.number, member.task
        self.num_steps = member.task.num_steps  # worked out of the data each time it is asked for
        self.model: nn.Module = Session.make_model(member.task).to(device.torch_device)
        self.optimizer = make_optimizer(self.task, self.model)
        choose_implementation(self.optimizer, self.model, plan, device)
        self.ema = None if self.task.ema_decay is None else Ema(self.model, self.task.ema_decay)
        self.step = 0
        if member.state is not None:
            self.load(member.state)

    @property
    def kept_model(self) -> nn.Module:
        """The model that is evaluated and kept."""
        return self.model if self.ema is None else self.ema.model

    def load(self, state: dict[str, Any]) -> None:
        """Loads a result of :meth:`state`."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        marks = [
            {name: group.get(name) for name in ("fused", "foreach")}
            for group in self.optimizer.param_groups
        ]
        # A copy: torch's optimizers continue in the very tensors that they are given, and the state
        # belongs to the caller.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for group, own in zip(self.optimizer.param_groups, marks, strict=True):
            group.update(own)  # the plan's implementation, whichever the state was made by
        if self.ema is not None:
            self.ema.model.load_state_dict(state["ema"])

    def state(self) -> dict[str, Any]:
        """Returns everything that changes while the member trains, copied to the host."""
        return on_host(
            {
                "step": self.step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": None if self.ema is None else self.ema.model.state_dict(),
            }
        )


def on_host(tree: Any) -> Any:
    """Returns a copy of a tree of dicts, lists and tensors, with every tensor on the host and
    owning no more memory than it shows."""
    if isinstance(tree, Tensor):
        # With the same strides: fused updates walk through parameters and their state by address.
        return tree.detach().to("cpu", copy=True, memory_format=torch.preserve_format)
    if isinstance(tree, dict):
        return {name: on_host(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(on_host(value) for value in tree)
    return tree
