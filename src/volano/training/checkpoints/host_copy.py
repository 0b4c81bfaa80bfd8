"""Copies of nested values on the host, of one moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from volano.device import Device
from volano.task import num_bytes
from volano.training.memory.out_of_memory import is_out_of_memory


class HostCopies:
    """Copies that share no memory with what is copied; tensors that are one stay one.

    Those of an accelerator go to page-locked memory if it can: at several times the rate. torch
    keeps such memory for the process once it is freed, so each copy takes that of the one before:
    a copy stands until the next.

    Args:
        on_notice: the function that hears, once, that no memory could be locked.
    """

    def __init__(self, on_notice: Callable[[str], None] = lambda _: None) -> None:
        self._on_notice = on_notice
        self._locked: list[Tensor] = []
        self._can_lock = True

    @property
    def locked_bytes(self) -> int:
        """The bytes of memory that the next copy need not ask for."""
        return num_bytes(self._locked)

    def of(self, tree: Any) -> Any:
        """Returns a copy; the one before it is overwritten, as far as it lay in locked memory."""
        free, self._locked = self._locked, []
        copies: dict[Any, Tensor] = {}
        devices: dict[torch.device, Device] = {}

        def copy(value: Any) -> Any:
            if isinstance(value, Tensor):
                key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
                if key not in copies or not value.numel():
                    copies[key] = self._copied(value.detach(), free, devices)
                return copies[key]
            if isinstance(value, dict):
                return type(value)((name, copy(item)) for name, item in value.items())
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                return type(value)(*(copy(item) for item in value))
            return type(value)(map(copy, value)) if isinstance(value, list | tuple) else value

        found = copy(tree)
        for device in devices.values():
            device.synchronize()
        return found

    def _copied(
        self, tensor: Tensor, free: list[Tensor], devices: dict[torch.device, Device]
    ) -> Tensor:
        place = tensor.device
        is_sent = place.type not in ("cpu", "meta") and tensor.layout is torch.strided
        if not is_sent or not self._can_lock:
            return tensor.to("cpu", copy=True)
        device = devices.setdefault(place, Device(str(place)))
        like = (tensor.dtype, tensor.shape, tensor.stride())
        fitting = (n for n, old in enumerate(free) if (old.dtype, old.shape, old.stride()) == like)
        number = next(fitting, None)
        try:
            host = device.to_host(tensor, None if number is None else free.pop(number))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._can_lock = False
            self._on_notice("no memory could be locked for the copy of the state: saves are slower")
            return tensor.to("cpu", copy=True)
        if device.can_pin:
            self._locked.append(host)
        return host
