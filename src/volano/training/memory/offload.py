"""Offloads to the host's memory what the device does not need at the moment: saved activations, the
optimizer's state.

Rajbhandari et al. 2021, "ZeRO-Infinity"; Ren et al. 2021, "ZeRO-Offload". Copies are queued
alongside the computation if the device can lock pages; the values are the same in either place.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from volano.device import Device
from volano.device.torch_private import base_of
from volano.device.transfer import SideCopies, side_copies
from volano.plan import Plan

# Of a page (sysconf(3)); a smaller tensor takes longer to send than it frees memory.
_LEAST_BYTES = 4096


def why_not_offloaded(device: Device, *, sharding: str, is_compiled: bool, what: str) -> str | None:
    """Returns why ``what`` (``"activations"`` or ``"optimizer"``) must stay on the device, or None
    if it can leave it."""
    if device.is_cpu:
        return f"{device.name} computes in the host's memory"
    if sharding != "none":
        return "each rank keeps a part of parameters and state only"
    if what == "activations" and is_compiled:
        return "the compiler decides what a compiled step keeps"
    return None


def offloaded_activations(
    plan: Plan, device: Device, on_notice: Callable[[str], None]
) -> Callable[[], OffloadedActivations] | None:
    """Returns what makes the context of a forward pass, if the plan wants what it saves on the host
    and that can be."""
    if plan.offload not in ("activations", "all"):
        return None
    reason = why_not_offloaded(
        device, sharding=plan.sharding, is_compiled=plan.compile, what="activations"
    )
    if reason is None:
        return functools.partial(OffloadedActivations, device, side_copies(device))
    on_notice(f"offload={plan.offload} leaves activations where they are: {reason}")
    return None


class OffloadedActivations(saved_tensors_hooks):
    """A context for a forward pass: what it saves for the backward pass lies on the host until
    then.

    Parameters and their views stay, and so does what is smaller than a page. A slice of a larger
    tensor comes back contiguous, anything else with the strides that it had. If copies run beside
    the computation, the backward pass finds the next tensor on its way: what was saved last is
    needed first.

    Args:
        copies: the copies beside the computation; None makes them in it.
    """

    def __init__(self, device: Device, copies: SideCopies | None = None) -> None:
        super().__init__(self._pack, self._unpack)
        self._device, self._copies = device, copies
        self._sent: list[weakref.ref[_Sent]] = []  # the graph keeps them

    def _pack(self, tensor: Tensor) -> Tensor | _Sent:
        if (
            tensor.device != self._device.torch_device
            or tensor.nbytes < _LEAST_BYTES
            or tensor.layout != torch.strided
            or isinstance(tensor, nn.Parameter)
            or isinstance(base_of(tensor), nn.Parameter)
        ):
            return tensor
        out = self._device.to_host if self._copies is None else self._copies.send
        sent = _Sent(out(tensor.detach()), len(self._sent))
        self._sent.append(weakref.ref(sent))
        return sent

    def _unpack(self, packed: Tensor | _Sent) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        if self._copies is None:
            return packed.host.to(self._device.torch_device, non_blocking=self._device.can_pin)
        tensor, copied = packed.coming or self._copies.fetch(packed.host)
        packed.coming, packed.is_taken = None, True  # a second backward pass fetches it again
        before = self._sent[packed.number - 1]() if packed.number else None
        # What was taken is still there until its operation has ended.
        if before is not None and before.coming is None and not before.is_taken:
            before.coming = self._copies.fetch(before.host)
        self._device.current_stream().wait_event(copied)
        return tensor


class _Sent:
    """A tensor on the host, and its copy on the way back, with the event that ends it."""

    def __init__(self, host: Tensor, number: int) -> None:
        self.host, self.number = host, number
        self.coming: tuple[Tensor, torch.Event] | None = None
        self.is_taken = False


def offloaded_state(
    plan: Plan, optimizer: torch.optim.Optimizer, device: Device, on_notice: Callable[[str], None]
) -> OffloadedState | None:
    """Returns the optimizer's state on the host, if the plan wants it there and it can be."""
    if plan.offload not in ("optimizer", "all"):
        return None
    reason = why_not_offloaded(
        device, sharding=plan.sharding, is_compiled=plan.compile, what="optimizer"
    )
    if reason is None:
        return OffloadedState(optimizer, device)
    on_notice(f"offload={plan.offload} leaves the optimizer's state where it is: {reason}")
    return None


class OffloadedState:
    """An optimizer's state that lies on the host between updates; during an update all of it is on
    the device."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: Device) -> None:
        self._optimizer, self._device = optimizer, device
        self._copies = side_copies(device)
        self._on_host: dict[tuple[Tensor, str], Tensor] = {}

    @contextmanager
    def fetched(self) -> Iterator[None]:
        """A context in which the optimizer may update; afterwards its state is on its way to the
        host again, beside the next forward pass if the device can.

        It is not fetched ahead: during the backward pass there would have to be room for it, which
        is what is saved, and what that pass has given back may be in use by what is still queued.
        """
        if self._copies is not None:
            self._copies.wait()  # for the way out
        there = self._device.torch_device
        for state in self._optimizer.state.values():
            for name, tensor in state.items():
                if self._is_sent(tensor) and tensor.device != there:
                    state[name] = tensor.to(there, non_blocking=self._device.can_pin)
        try:
            yield
        finally:
            self.put_away()

    def put_away(self) -> None:
        """Sends all state to the host. Synchronize with the device before reading it there."""
        out = self._device.to_host if self._copies is None else self._copies.send
        for parameter, state in self._optimizer.state.items():
            for name, tensor in state.items():
                if self._is_sent(tensor) and tensor.device == self._device.torch_device:
                    place = parameter, name
                    state[name] = self._on_host[place] = out(tensor, self._on_host.get(place))

    @staticmethod
    def _is_sent(value: Any) -> bool:
        # Small ones stay: among them is the count of steps, which lives where the implementation
        # wants it.
        return isinstance(value, Tensor) and value.nbytes >= _LEAST_BYTES
