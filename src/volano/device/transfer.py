"""Copies batches from host to device in parallel to the computation."""

from __future__ import annotations

from typing import Any

import torch

from volano.device.device import Device
from volano.task import map_tensors


class Transfer:
    """A transfer that puts batches on a device one ahead of their use.

    If the device has streams, ``start`` queues the copy on a stream of its own and ``finish``
    makes the computation wait for it. The destination is allocated on the *computation's* stream:
    memory allocated on the copying stream could be freed and reused there while the computation
    still reads it.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = device.stream()

    def start(self, batch: Any) -> tuple[Any, torch.Event | None]:
        """Begins copying a host batch; hand the result to :meth:`finish`."""
        device, stream = self._device, self._stream
        if device.is_cpu:
            return batch, None
        if stream is None:
            return device.move(batch), None
        target = map_tensors(
            lambda tensor: torch.empty_like(tensor, device=device.torch_device), batch
        )
        stream.wait_stream(device.current_stream())
        with stream:
            _copy(batch, target)
            copied = device.event()
            copied.record(stream)
        # The pinned source must outlive the copy, hence it travels with the target.
        return (target, batch), copied

    def finish(self, pending: tuple[Any, torch.Event | None]) -> Any:
        """Returns the batch on the device, safe to read from the current stream."""
        value, copied = pending
        if copied is None:
            return value
        self._device.current_stream().wait_event(copied)
        return value[0]


def _copy(source: Any, target: Any) -> None:
    from volano.task import tensors_of

    for from_tensor, to_tensor in zip(tensors_of(source), tensors_of(target), strict=True):
        to_tensor.copy_(from_tensor, non_blocking=True)
