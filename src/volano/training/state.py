"""The state that an optimizer step changes: the model and all that belongs to it, made in one way
for every training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.plan import Plan
from volano.task import Task
from volano.training.optim.ema import Ema
from volano.training.optim.make_optimizer import (
    choose_implementation,
    left_out,
    make_optimizer,
    with_own_marks,
)


@dataclass
class TrainState:
    """The model, optimizer, average and scaler of one training.

    Attributes:
        model: the model, on its device.
        optimizer: over its parameters.
        ema: the average of its weights; None without one.
        scaler: the scaler of the loss, for the range of fp16; None elsewhere.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None = None
    scaler: torch.amp.GradScaler | None = None

    @property
    def models(self) -> list[nn.Module]:
        """The model, and its average if there is one."""
        return [self.model] if self.ema is None else [self.model, self.ema.model]

    @property
    def kept_model(self) -> nn.Module:
        """The model that is evaluated and kept: the average if there is one."""
        return self.models[-1]

    def state_dict(self) -> dict[str, Any]:
        """Returns all that training changes, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.model.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; which implementation updates stays as it is here."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(with_own_marks(state["optimizer"], self.optimizer))
        if self.ema is not None:
            self.ema.model.load_state_dict(state["ema"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])

    def template(self, place: str) -> Tensor | None:
        """Returns the tensor that is sharded as the one at a place of a state dict shall be."""
        part, _, name = place.partition(".")
        if part == "model":
            return self.model.state_dict().get(name)
        if part == "ema" and self.ema is not None:
            return self.ema.model.state_dict().get(name)
        number = name.split(".")[1] if name.startswith("state.") else ""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return (
            parameters[int(number)].detach()
            if number.isdigit() and int(number) < len(parameters)
            else None
        )


def make_state(
    task: Task,
    plan: Plan,
    device: Device,
    model: nn.Module,
    average: nn.Module | None = None,
    *,
    on_notice: Callable[[str], None],
) -> TrainState:
    """Returns the state with which a training begins.

    Args:
        task: the task to train.
        plan: the plan under which it is trained.
        device: the device to train on.
        model: the model, on the device, in the plan's memory format.
        average: a copy of the model, if it cannot be made from the model as it is by now.
        on_notice: the function that hears what the optimizer leaves out, and if the plan's does
            not apply.
    """
    optimizer = make_optimizer(task, model)
    missing = left_out(optimizer, model)
    if missing:
        on_notice(
            f"{len(missing)} trainable parameters are in no group of the optimizer and stay as "
            f"they are: {', '.join(missing[:5])}{', ...' * (len(missing) > 5)}"
        )
    reason = choose_implementation(optimizer, model, plan, device)
    if reason is not None:
        on_notice(f"optimizer={plan.optimizer} does not apply: {reason}")
    ema = None if task.ema_decay is None else Ema(model, task.ema_decay, average)
    return TrainState(
        model=model, optimizer=optimizer, ema=ema, scaler=device.grad_scaler(plan.precision)
    )
