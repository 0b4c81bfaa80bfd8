"""The size of a pack: how many members it takes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from volano.data import why_streamed
from volano.device import Device
from volano.device.isolated import IsolatedError
from volano.plan import Plan
from volano.planner.memory.predict import predict_memory
from volano.task import Task

# Copies of a parameter: itself, its gradient and the two averages of Adam.
_COPIES = 4
# On a CPU, members' state is read and written at each step: packs whose state stays within the
# caches train fastest. Digits' MLP (0.4 MB a member) measured 114, 104, 142 and 134 us a
# member-step at K = 8, 16, 32, 64 (docs/log.md).
_CACHED_BYTES = 10 * 2**20
_FEWEST, _MOST_ON_CPU, _MOST = 8, 32, 256
# The share of the free memory that is left alone, for the allocator and for what a prediction does
# not see.
_RESERVE = 0.15
# If members' state is below this share of the free memory, their activations are not predicted.
_SMALL = 0.02


@dataclass(frozen=True, kw_only=True)
class PackSize:
    """The size of packs: at most so many members, and why."""

    members: int
    reason: str


def pack_size(
    task: Task, model: nn.Module, plan: Plan, device: Device, *, free: int | None = None
) -> PackSize:
    """Returns the size for packs of members like this one.

    Args:
        task, model: task and model of one member.
        plan, device: plan and device under which they train.
        free: bytes that a pack may take; None asks the device.
    """
    state = _COPIES * sum(p.numel() * p.element_size() for p in model.parameters())
    size = PackSize(members=_MOST, reason=f"the largest pack is of {_MOST}")
    if device.is_cpu:
        cached = max(_FEWEST, min(_MOST_ON_CPU, _CACHED_BYTES // max(1, state)))
        size = PackSize(
            members=cached,
            reason=f"{cached} members of {state / 2**20:.1f} MiB stay within the caches",
        )
        why = why_streamed(task.data, task.collate, device)
        if why is not None:  # each pack makes the batches again
            size = PackSize(
                members=_MOST_ON_CPU,
                reason=f"batches are made once for {_MOST_ON_CPU} members: {why}",
            )
    free = device.free_bytes() if free is None else free
    if free is None or state * size.members < _SMALL * free:
        return size
    member = bytes_of_member(task, plan, device) or 2 * state
    if device.has_graphs:  # a recorded step keeps its memory beside that of what runs eagerly
        member += max(0, member - state)
    fit = max(1, int((1.0 - _RESERVE) * free / member))
    if fit >= size.members:
        return size
    return PackSize(
        members=fit,
        reason=f"{fit} members of {member / 2**20:,.0f} MiB fit the {free / 2**20:,.0f} MiB free, "
        f"less {_RESERVE:.0%}",
    )


def bytes_of_member(task: Task, plan: Plan, device: Device) -> int | None:
    """Predicts the bytes that a step holds for each member at its peak, without data and batch,
    which members may share. None if a step cannot be predicted."""
    try:
        memory = predict_memory(task, plan, target="cpu" if device.is_cpu else "accelerator").memory
    except IsolatedError:
        return None
    return max(
        1, memory.peak - memory.categories.get("data", 0) - memory.categories.get("batch", 0)
    )
