"""The data-parallel part of a step: what the ranks of a run do together.

Each rank works on every ``world_size``-th example of the global batch and gives its *sum* of the
loss; gradients are added up over the ranks while the backward pass still runs, by torch's
DistributedDataParallel (``sharding="none"``) or FSDP2 (``"full"``, ``"hybrid"``; Zhao et al. 2023).
With the sums of loss and weight the step is that of the whole batch.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from volano.device import Device, Ranks
from volano.device.torch_private import buffers_of, foreach_copy_
from volano.errors import ObjectiveError, PlanError
from volano.plan import Plan
from volano.task import Batch, Loss, Task, as_loss, map_tensors, metric_sums, num_examples, split
from volano.training.distributed.sync_batchnorm import SharedBatchNorm, share_batch_statistics


def check_ranks(task: Task, plan: Plan, world_size: int) -> None:
    """Raises PlanError unless every global batch can be cut into equal parts, one for each rank,
    under the plan."""
    if world_size == 1:
        return
    rest = len(task.data) % task.batch_size if task.last_batch == "keep" else 0
    for what, size in (("batch_size", task.batch_size), ("the epoch's last batch", rest)):
        if size % world_size:
            raise PlanError(
                "The number of ranks must divide the batch: all ranks take as many examples",
                got=f"{world_size} ranks and {what}={size}",
                remedy="Start another number of ranks, or take another batch_size, or "
                "last_batch='drop'",
            )
    if plan.sharding != "none":
        for knob, value in (("memory_format", "channels_last"), ("precision", "fp16")):
            if getattr(plan, knob) == value:
                raise PlanError(
                    f"sharding={plan.sharding!r} needs contiguous parameters, and precisions that "
                    "need no loss scaling",
                    got=f"{knob}={value!r}",
                    remedy=f"Pin another {knob}, or sharding='none'",
                )


def check_own_device(device: Device, ranks: Ranks) -> None:
    """Raises PlanError if there is no accelerator here for a rank that trains on one."""
    if ranks.are_several and not device.is_cpu and ranks.local_rank >= Device.count():
        raise PlanError(
            "Each rank must have an accelerator of its own",
            got=f"rank {ranks.local_rank} of this machine, which has {Device.count()}",
            remedy="Start fewer ranks here",
        )


class DataParallel:
    """A model that ranks train together.

    Args:
        model: the model of this rank, on its device; its parameters are replaced by parts
            of themselves unless ``sharding`` is ``"none"``, so make the optimizer afterwards.
        sharding: the sharding of the plan.
        device: the device of this rank.
        ranks: the ranks, at least two.

    Attributes:
        ranks: the ranks as given.
        factor: the factor of a loss, so that the gradients that arrive are sums over ranks.
    """

    def __init__(self, model: nn.Module, sharding: str, device: Device, ranks: Ranks) -> None:
        self.ranks, self._sharding, self._model = ranks, sharding, model
        # DistributedDataParallel gives the mean over ranks; sharded modules give the sum.
        self.factor = ranks.world_size if sharding == "none" else 1
        share_batch_statistics(model, device)
        if sharding != "none":
            shard(model, device, ranks, sharding)
        self._device = device
        self._metrics: list[str] | None = None  # names that the ranks have agreed upon
        self._forward: nn.Module | None = None

    def parts_of(
        self,
        batch: Batch,
        micro_batch: int | None,
        objective: Callable[..., Any],
        *,
        is_global: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> list[Batch]:
        """Returns this rank's micro-batches of a batch; ``is_global`` says that it is the batch of
        all ranks. ``autocast`` makes the context of the plan's precision.

        Before the first step of a run it binds the objective to the model, with the first of them.
        """
        if is_global:
            # Every ``world_size``-th example, as in ``Order.key``.
            rank, world_size = self.ranks.rank, self.ranks.world_size
            batch = map_tensors(
                lambda tensor: tensor[rank::world_size] if tensor.ndim else tensor, batch
            )
        parts = split(batch, micro_batch or num_examples(batch))
        if self._forward is None:
            self._begin(objective, parts[0], autocast)
        return parts

    def _begin(
        self,
        objective: Callable[..., Any],
        batch: Batch,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._forward = _ObjectiveModule(self._model, objective)
        if self._sharding == "none":
            self._forward = nn.parallel.DistributedDataParallel(
                self._forward,
                find_unused_parameters=self._has_idle_parameters(self._forward, batch, autocast),
                gradient_as_bucket_view=True,  # a copy of all gradients less
                **_buffer_settings(self._model),
            )

    def _has_idle_parameters(
        self, forward: nn.Module, batch: Batch, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> bool:
        """Returns whether the loss leaves a parameter out on any rank; gradients are then waited
        for in another way. Tried on the first batch, which leaves buffers and random state as they
        were."""
        buffers, state = list(self._model.buffers()), self._device.rng_state()
        saved = [buffer.clone() for buffer in buffers]
        with autocast():  # as the step itself, which was found to fit
            total = forward(batch)[0]
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        if buffers:
            foreach_copy_(buffers, saved)
        self._device.set_rng_state(state)
        return bool(self.ranks.largest([any(gradient is None for gradient in gradients)])[0])

    def loss(self, batch: Batch) -> Loss:
        """The objective's sums over this rank's examples, such that the backward pass adds up
        gradients over ranks."""
        assert self._forward is not None
        total, weight, metrics = self._forward(batch)
        return Loss(total=total, weight=weight, metrics=metrics)

    def sums(self, losses: list[Loss]) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Returns the loss, its weight, and each metric's mean, over all micro-batches of all
        ranks."""
        own = dict.fromkeys(name for loss in losses for name in loss.metrics)
        # Agreed upon once: to ask at every step would cost an exchange, and a wait for the device.
        if self._metrics is None:
            self._metrics = self.ranks.union(list(own))
        if unknown := [name for name in own if name not in self._metrics]:
            raise ObjectiveError(
                "Metrics that several ranks add up must all be there at the first step, on one of "
                "the ranks",
                got=f"{unknown[0]!r} at a later one",
                remedy="Give it at each step, NaN with Loss.weight 0 if there is none",
            )
        kind = losses[0].total
        columns = [sum(loss.total for loss in losses), sum(loss.weight for loss in losses)]
        for name in self._metrics:
            columns += metric_sums(losses, name)
        vector = [_on_device(column, kind) for column in columns]
        total, weight, *rest = self.ranks.add_up(torch.stack(vector)).unbind()
        means = [value / of for of, value in zip(rest[::2], rest[1::2], strict=True)]
        return total, weight, dict(zip(self._metrics, means, strict=True))

    def share_flag(self, flag: Tensor) -> None:
        """Raises a flag on every rank if one has raised it: each sees its part of the gradients
        alone."""
        if self._sharding != "none":
            self.ranks.add_up(flag)
            flag.clamp_(max=1.0)

    def exchanging(self, is_last: bool) -> AbstractContextManager[None]:
        """A context for a backward pass: only the last one of a step exchanges gradients. Of a
        sharded model each does, or every rank would hold them whole until then."""
        if is_last or self._sharding != "none":
            return contextlib.nullcontext()
        return self._forward.no_sync()  # pyright: ignore[reportCallIssue, reportOptionalMemberAccess] - DistributedDataParallel's


class _ObjectiveModule(nn.Module):
    """A module of objective and model, so that DistributedDataParallel sees what the objective
    does."""

    def __init__(self, model: nn.Module, objective: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        # In a tuple: an objective that is a module is no part of the model.
        self._call = (objective,)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | float, dict[str, Tensor | float]]:
        """Returns the total, weight and metrics of the objective; see :class:`Loss`."""
        loss = as_loss(self._call[0](self.model, batch), num_examples(batch))
        return loss.total, loss.weight, dict(loss.metrics)


# ---- sharding


def shard(model: nn.Module, device: Device, ranks: Ranks, sharding: str) -> None:
    """Replaces the parameters of a module, in place, by this rank's parts of them, which lie on its
    device: block by block, so that no device ever holds a whole model that lies on the host."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = _mesh(device, ranks, sharding)
    num_parameters = len(list(model.parameters()))
    # From the inside out, as FSDP2 asks.
    for module in [*reversed(list(_blocks(model))), model]:
        fully_shard(module, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
    if len(list(model.parameters())) != num_parameters:
        raise PlanError(
            "Parameters that are cut into parts must not be shared between the entries of a list "
            "of modules",
            got=f"{num_parameters} tied to {len(list(model.parameters()))}",
            remedy="Pin sharding='none'",
        )


def _mesh(device: Device, ranks: Ranks, sharding: str) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    if sharding == "full":
        return init_device_mesh(device.kind, (ranks.world_size,))
    per_node = ranks.per_node
    if per_node is None or ranks.world_size % per_node:
        raise PlanError(
            "sharding='hybrid' needs machines of equally many ranks",
            got=f"{ranks.world_size} ranks, {per_node or 'an unknown number'} of each machine",
            remedy="Start them with torchrun, or pin sharding='full'",
        )
    shape = (ranks.world_size // per_node, per_node)
    return init_device_mesh(device.kind, shape, mesh_dim_names=("replicate", "shard"))


def has_own_buffers(model: nn.Module) -> bool:
    """Checks whether a model has buffers whose values ranks do not share by themselves."""
    norms = (SharedBatchNorm, nn.SyncBatchNorm)
    return any(
        buffer is not None
        for module in model.modules()
        if not isinstance(module, norms)
        for buffer in buffers_of(module).values()
    )


def _buffer_settings(model: nn.Module) -> dict[str, Any]:
    """Returns the arguments of DistributedDataParallel by which ranks take the first one's buffers
    at each step: only if they have any that they do not share already."""
    if has_own_buffers(model):
        return {}
    known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    name = "forward_sync_buffers"  # torch 2.12 and later
    return {name if name in known else "broadcast_buffers": False}


def _on_device(value: Tensor | float, like: Tensor) -> Tensor:
    """Returns a sum in the type and on the device of another, without waiting for the device: a
    number is filled in there, not copied."""
    if isinstance(value, Tensor):
        return value.to(dtype=like.dtype, device=like.device)
    return torch.full((), value, dtype=like.dtype, device=like.device)


def resharded(model: nn.Module) -> None:
    """Gives back the whole parameters that a sharded model keeps after a forward pass without a
    backward pass: they would be those of that moment from then on."""
    for module in model.modules():
        reshard = getattr(module, "reshard", None)
        if reshard is not None and hasattr(module, "unshard"):
            reshard()


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Returns the modules that are gathered at once: the entries of lists and sequences of modules,
    as transformers keep their layers."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for child in module:
                is_container = isinstance(child, nn.ModuleList | nn.Sequential)
                if not is_container and any(True for _ in child.parameters()):
                    yield child


def whole_state(model: nn.Module, *, is_kept: bool) -> dict[str, Tensor]:
    """Returns ``model.state_dict()`` with whole tensors on the host, one gathered after the other.
    Every rank of a sharded model takes part; those that do not keep it get nothing."""
    found = {}
    for name, tensor in model.state_dict().items():
        gathered = whole(tensor).detach()
        if is_kept:
            found[name] = gathered.cpu()
    return found


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered from all ranks; any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def local(tensor: Tensor) -> Tensor:
    """Returns this rank's part of a sharded tensor, sharing its memory; any other tensor as it
    is."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()
