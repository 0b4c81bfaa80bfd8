"""The probe batch on which plans are compared: one batch of a task, and a task that trains on it as
it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from volano.data import Fetcher, Order, counter_hash
from volano.device import Device
from volano.device.torch_private import AnyDropout
from volano.plan import Plan
from volano.planner.parity.pick_examples import most_unlike
from volano.task import Batch, Task, as_loss, map_tensors, num_examples, split
from volano.training import Session, seed_of_augmentation
from volano.training.step import MODEL_SEEDS

# The nudge, as a share of a parameter's size: far above rounding, and no farther than some steps of
# training.
_NUDGE = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradient:
    """The results of one pass over a batch.

    Attributes:
        loss: the loss of the batch.
        weight: the sum of ``Loss.weight``; the number of examples if the objective gives a mean
            over them.
        gradients: parameter's name -> gradient of the loss, None if there is none.
        buffers: name -> the model's buffer afterwards.
        moved: name -> the change that the passes themselves make to a parameter, as to a teacher
            that follows its student (zero nearly everywhere); empty if the weights were not nudged.
    """

    loss: float
    weight: float
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]
    moved: dict[str, Tensor | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeBatch:
    """A batch of a task, already augmented, on the device.

    Attributes:
        task: the task without data and augmentation, with the batch's size and the original number
            of steps.
        batch: the batch that its steps are given.
        full_size: number of examples of the original task's batch; ``batch`` may have fewer.
        step: the optimizer step (from 0) whose batch it is.
        source: the task as it was given.
    """

    task: Task
    batch: Batch
    full_size: int
    step: int
    source: Task

    @property
    def size(self) -> int:
        """The number of examples of the batch."""
        return num_examples(self.batch)

    def copied(self) -> Batch:
        """Returns a batch like those of a feed, into which an objective may write."""
        return map_tensors(torch.clone, self.batch)

    def cut(self, size: int) -> ProbeBatch:
        """Returns the probe batch of the first ``size`` examples."""
        if size >= self.size:
            return self
        task = dataclasses.replace(self.task, batch_size=size)
        return dataclasses.replace(self, task=task, batch=split(self.batch, size)[0])

    def most_unlike(self, size: int) -> ProbeBatch:
        """Returns the probe batch of ``size`` examples that differ in what a mean may be taken
        over."""
        if size >= self.size:
            return self
        picked = most_unlike(self.batch, size)
        task = dataclasses.replace(self.task, batch_size=size)
        return dataclasses.replace(self, task=task, batch=split(picked, size)[0])

    def fitted(self, plan: Plan) -> Plan:
        """Fits the plan to this batch: a micro-batch is the same share of it, and its examples lie
        on the device already."""
        micro_batch = plan.micro_batch
        if micro_batch is not None and self.size < self.full_size:
            micro_batch = max(
                1, min(self.size - 1, round(micro_batch * self.size / self.full_size))
            )
        return plan.pin(micro_batch=micro_batch, feed="ring", workers=0)


def take_probe_batch(task: Task, device: Device, *, step: int = 0) -> ProbeBatch:
    """Takes the batch of a step as a run would see it. Draws from the global generators if the data
    does."""
    batch = device.move(
        Fetcher(task.data, task.collate, task.order_seed)(Order.of(task).key(step)).batch
    )
    if task.augment is not None:
        generator = device.generator()
        generator.manual_seed(seed_of_augmentation(task, step))
        batch = task.augment(batch, generator)
    plain = dataclasses.replace(
        task,
        data=range(len(task.data)),
        valid=None,
        preview=None,
        collate=None,
        augment=None,
        ema_decay=None,
        last_batch="keep",
        batch_size=num_examples(batch),
        duration=f"{task.num_steps}st",
    )
    return ProbeBatch(task=plain, batch=batch, full_size=task.batch_size, step=step, source=task)


def gradient_of(
    probe_batch: ProbeBatch,
    device: Device,
    parts: Iterable[Batch],
    mode: AbstractContextManager[Any],
    *,
    dtype: torch.dtype | None = None,
    is_channels_last: bool = False,
    dropout: bool = True,
    nudged: bool = False,
) -> Gradient:
    """Computes the gradient of a batch given in parts, in a dozen lines that share nothing with the
    engine's step.

    Args:
        probe_batch: the probe batch; its model is made again, with the weights at the start of a
            run.
        device: the device to compute on.
        parts: the batch, or its micro-batches.
        mode: a context entered for forward and backward pass, not for making the model.
        dtype: the type of weights and floating inputs; None leaves them.
        is_channels_last: whether the model lies in channels_last.
        dropout: whether layers drop.
        nudged: whether the weights are moved a little first, always by the same numbers.
    """
    task = probe_batch.task
    model = Session.make_model(task).to(device.torch_device, dtype)
    if is_channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    before: dict[str, Tensor] = {}
    if nudged:
        _nudge(model)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    if not dropout:
        switch_off_dropout(model)
    total, weight = 0.0, 0.0
    with mode:
        for index, part in enumerate(parts):
            # A copy: an objective may write into its batch, or take keys out of it.
            part = map_tensors(
                lambda tensor: (
                    tensor.to(dtype, copy=True)
                    if dtype is not None and tensor.is_floating_point()
                    else tensor.clone()
                ),
                part,
            )
            device.seed(counter_hash(MODEL_SEEDS, task.seed, probe_batch.step, index))
            loss = as_loss(task.objective(model, part), num_examples(part))
            loss.total.backward()
            total, weight = total + float(loss.total.detach()), weight + float(loss.weight)
    gradients = {
        name: None if p.grad is None else p.grad / weight for name, p in model.named_parameters()
    }
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    moved: dict[str, Tensor | None] = {
        name: p.detach() - before[name] for name, p in model.named_parameters() if before
    }
    return Gradient(
        loss=total / weight, weight=weight, gradients=gradients, buffers=buffers, moved=moved
    )


@torch.no_grad()
def _nudge(model: nn.Module) -> None:
    """Adds to each parameter noise of a hundredth of its root mean square; to a parameter that is
    zero, of a hundredth.

    At the start of a run some parameters are equal that will not stay so: a teacher equals its
    student, a last layer is zero.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            size = parameter.square().mean().sqrt()
            parameter.add_(noise.to(parameter) * torch.where(size > 0, size, 1.0) * _NUDGE)


def switch_off_dropout(model: nn.Module) -> None:
    """Sets every rate of dropout that is a module's own to zero; the rest of the model stays in
    training mode."""
    for module in model.modules():
        layer: Any = module
        if isinstance(module, AnyDropout):
            layer.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # recurrent layers and attention
            layer.dropout = 0.0
