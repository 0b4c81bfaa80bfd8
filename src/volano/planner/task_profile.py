"""The task's profile: the facts about task and device on which candidates depend, found out
once."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from volano.data import Fetcher, Key, first_batches, rows_of
from volano.device import Device, bf16_speed
from volano.device.random_state import random_state_kept
from volano.device.torch_private import AnyBatchNorm, AnyConvolution, parameters_of
from volano.errors import reason_of
from volano.plan import Plan
from volano.plan.explanation import Explanation
from volano.plan.network import NetworkFigures, NetworkPart
from volano.task import Batch, Task, tensors_of
from volano.task.code_digest import module_code
from volano.task.describe import FILE_MODULE
from volano.training import Session, blocks_of, choose_implementation, make_optimizer
from volano.training.graphs.compiling import num_repeats
from volano.training.network_parts import network_parts
from volano.training.prefix.find_prefix import FrozenPrefixFacts, find_prefix, has_frozen_layers
from volano.training.prefix.training_prefix import why_not_cached


@dataclass(frozen=True, kw_only=True)
class TaskProfile:
    """The facts about a task on a device.

    Attributes:
        device: the device of the run.
        structure: digest of the model's parameters, buffers and classes, and of the optimizer's.
        parameter_bytes: bytes of parameters and buffers.
        token_bytes: about the bytes that one index of a batch (a token, a class) becomes in a
            step's activations: of each layer's output and what is derived from it.
        bf16_speed: rate of a small bf16 product as a multiple of fp32's; 0 if the device has no
            units for it.
        has_images: whether a parameter has four dimensions, which is what ``channels_last``
            concerns.
        has_convolutions: whether a layer is a convolution of torch's.
        shares_statistics: whether a layer takes statistics of a batch, which ranks exchange in the
            middle of a pass.
        has_one_shape: whether the batches that were looked at have the same shapes.
        num_repeats: for how many of the model's blocks one compilation serves; 0 if none repeat.
        why_not_fused, why_not_foreach: why an implementation of the update does not apply; None if
            it does.
        why_not_compile: why nothing can be compiled here, or None.
        can_keep_memory: whether the host's allocator supports ``allocator="keep"``.
        num_threads: torch's own number of threads.
        blocks: names of the model's repeated blocks, the units of recomputation.
        network: the model's parts.
        prefix: the model's frozen prefix; or why what it computes is not kept, in words.
        resident_bytes: bytes of the data, if it can be kept on the device; None if it cannot.
        batches: some of the run's first batches, on the host, the one with the most bytes first: a
            step that fits it fits the others.
    """

    device: Device
    structure: str
    parameter_bytes: int
    token_bytes: int
    bf16_speed: float
    has_images: bool
    has_convolutions: bool
    shares_statistics: bool
    has_one_shape: bool
    num_repeats: int
    why_not_fused: str | None
    why_not_foreach: str | None
    why_not_compile: str | None
    can_keep_memory: bool
    num_threads: int
    blocks: tuple[str, ...]
    prefix: FrozenPrefixFacts | str
    resident_bytes: int | None
    batches: tuple[Batch, ...] = field(repr=False)
    network: tuple[NetworkPart, ...] = ()

    @property
    def batch(self) -> Batch:
        """The largest of :attr:`batches`."""
        return self.batches[0]


def profile_task(task: Task, device: Device, *, model: nn.Module | None = None) -> TaskProfile:
    """Makes the first batch, and looks at it and at the model; None builds one.

    Raises:
        VolanoError: the errors that the run itself would raise.
    """
    with random_state_kept(device):
        model = Session.make_model(task) if model is None else model
        batches = first_batches(task)
        reasons = {
            name: choose_implementation(
                make_optimizer(task, model), model, Plan(optimizer=name), device
            )
            for name in ("fused", "foreach")
        }
        optimizer = make_optimizer(task, model)
    tensors = [*model.parameters(), *model.buffers()]
    return TaskProfile(
        device=device,
        structure=_structure(model, optimizer),
        parameter_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        token_bytes=_token_bytes(model),
        bf16_speed=bf16_speed(device) if device.has_bf16_units else 0.0,
        has_images=any(parameter.ndim == 4 for parameter in model.parameters()),
        has_convolutions=any(isinstance(m, AnyConvolution) for m in model.modules()),
        shares_statistics=any(isinstance(m, AnyBatchNorm) for m in model.modules()),
        has_one_shape=len(set(map(_shapes, batches))) == 1,
        num_repeats=num_repeats(model),
        why_not_fused=reasons["fused"],
        why_not_foreach=reasons["foreach"],
        why_not_compile=_why_not_compile(device),
        can_keep_memory=device.can_keep_memory,
        num_threads=torch.get_num_threads(),
        blocks=tuple(blocks_of(model)),
        prefix=_prefix(task, device, model, batches[0]),
        resident_bytes=resident_data_bytes(task),
        batches=batches,
        network=network_parts(model),
    )


# Examples that are made twice, to see whether the data draws.
_NUM_MADE_TWICE = 4
# Taking up what was kept must be so much faster than computing it, because few examples show it.
_LEAST_GAIN = 2.0


def _prefix(task: Task, device: Device, model: nn.Module, batch: Batch) -> FrozenPrefixFacts | str:
    reason = None if has_frozen_layers(model) else "no layer of the model is frozen"
    if task.num_steps <= task.steps_per_epoch:
        reason = reason or "no example comes twice"
    reason = reason or why_not_cached(task, Plan(prefix="cached"), 1) or _why_drawn(task)
    if reason is not None:
        return reason
    with random_state_kept(device):
        try:
            found = find_prefix(
                model.to(device.torch_device),
                lambda part: task.objective(model, part),
                device.move(batch),
                device,
            )
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything: it is computed at each step
            return f"it cannot be looked at: {reason_of(error)}"
    if isinstance(found, str):
        return found
    if found.computing < _LEAST_GAIN * found.looking:
        return "looking up what it computes takes about as long as computing it"
    return found


def _why_drawn(task: Task) -> str | None:
    """Returns why examples are not the same in each epoch, as far as some of them show it."""
    if task.collate is None and rows_of(task.data) is not None:
        return None
    fetcher = Fetcher(task.data, task.collate, task.order_seed)
    indices = np.arange(min(_NUM_MADE_TWICE, len(task.data)))
    first, second = (fetcher(Key(epoch, indices)).batch for epoch in (0, 1))
    pairs = list(zip(tensors_of(first), tensors_of(second), strict=True))
    if all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs):
        return None
    return "the data makes other examples in each epoch"


# Copies of a layer's output: the output, what its activation function keeps, its gradient.
_OUTPUT_COPIES, _BYTES_OF_FP32 = 3, 4


def _token_bytes(model: nn.Module) -> int:
    widths = 0
    for module in model.modules():
        weight = parameters_of(module).get("weight")
        if weight is not None and weight.ndim:
            # [out, in] of a product; an embedding's is [indices, width].
            widths += weight.shape[-1] if isinstance(module, nn.Embedding) else weight.shape[0]
    return widths * _OUTPUT_COPIES * _BYTES_OF_FP32


def _shapes(batch: Batch) -> str:
    return repr([tuple(tensor.shape) for tensor in tensors_of(batch)])


def _structure(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        # extra_repr holds what a layer was made with: strides, probabilities, numbers of heads.
        digest.update(f"{name} {_class_name(module)} {module.extra_repr()}\n".encode())
    digest.update(module_code(model).encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(
            f"{name} {tuple(tensor.shape)} {tensor.dtype} {tensor.requires_grad}\n".encode()
        )
    digest.update(f"{_class_name(optimizer)}\n".encode())
    for group in optimizer.param_groups:
        digest.update(f"{len(group['params'])} {sorted(_flags(group).items())}\n".encode())
    return digest.hexdigest()


def _class_name(value: Any) -> str:
    return f"{type(value).__module__.removeprefix(FILE_MODULE)}.{type(value).__qualname__}"


def _flags(group: dict[str, Any]) -> dict[str, str]:
    # Rates and decays are numbers of the experiment, and cost the same whatever they are.
    return {
        name: str(value)
        for name, value in group.items()
        if isinstance(value, bool | type(None) | str)
    }


def _why_not_compile(device: Device) -> str | None:
    if device.is_cpu and not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        return "torch.compile needs a C++ compiler for the CPU, and none is found"
    return None


def filling_steps(task: Task) -> int:
    """Returns the steps in which a frozen prefix is computed though it is kept: those of the first
    epoch."""
    return min(task.num_steps, task.steps_per_epoch)


def said_of_prefix(task: Task, profile: TaskProfile, plan: Plan, num_steps: int) -> tuple[str, ...]:
    """Returns in words what a plan keeps of a frozen prefix, and what that saves; nothing if it
    keeps nothing."""
    facts = profile.prefix
    if plan.prefix == "computed" or isinstance(facts, str):
        return ()
    kept, epochs = facts.row_bytes * len(task.data), num_steps / task.steps_per_epoch
    bits = "the same bits" if facts.is_exact else "the same numbers within rounding"
    return (
        f"{facts.num_frozen} of {facts.num_layers} layers are frozen, and what they compute of an "
        f"example is kept, {kept / 2**20:,.3g} MiB in all: {epochs - 1:.3g} of {epochs:.3g} epochs "
        f"skip {facts.share:.0%} of a step; it is {bits} in other batches",
    )


def network_figures(task: Task, profile: TaskProfile, explanation: Explanation) -> NetworkFigures:
    """Returns the network as an explanation shows it: what is frozen, and what keeping that saves,
    from measured steps where there are some."""
    facts, parts = profile.prefix, profile.network
    if all(part.trained == part.parameters for part in parts):
        return NetworkFigures(parts=parts)
    if isinstance(facts, str):
        return NetworkFigures(parts=parts)  # the explanation says why among what is refused
    layers = f"what {facts.num_frozen} of {facts.num_layers} layers compute, which are frozen,"
    if explanation.plan.prefix == "computed":
        return NetworkFigures(parts=parts, frozen=f"{layers} is computed at each step")
    steps = max(0, explanation.num_steps - filling_steps(task))
    chosen = explanation.candidates[0]
    is_measured = chosen.measured is not None and chosen.filling > 0
    step = max(0.0, facts.computing - facts.looking) * task.batch_size
    return NetworkFigures(
        parts=parts,
        frozen=f"{layers} is kept in the first epoch and used again in the others",
        saved_seconds=(chosen.filling if is_measured else step) * steps,
        is_measured=is_measured,
    )


def resident_data_bytes(task: Task) -> int | None:
    """Returns the bytes of the data, if all of it lies in tensors; None otherwise."""
    sets = [rows_of(data) for data in (task.data, task.valid) if data is not None]
    if task.collate is not None or any(rows is None for rows in sets):
        return None
    return sum(rows.num_bytes() for rows in sets if rows is not None)
