"""Copies batches from host to device in parallel to the computation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
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


class SideCopies:
    """Copies of single tensors between device and host on a stream of their own, beside the
    computation: for what the device does not need for a while.

    Args:
        device: the device; ``stream()`` of it must not be None.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        stream = device.stream()
        assert stream is not None
        self._stream = stream

    def send(self, tensor: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        """Begins copying a tensor to the host; its memory on the device may be dropped at once. The
        copy is complete when the device has been synchronized, or :meth:`fetch` has given it
        back."""
        self._stream.wait_stream(self._device.current_stream())
        with self._stream:
            host = self._device.to_host(tensor, target)
        self._device.keep_until_done(tensor, self._stream)
        return host

    def fetch(self, host: torch.Tensor) -> tuple[torch.Tensor, torch.Event]:
        """Begins copying a tensor back. The computation must wait for the event before it reads
        it."""
        # Of the computation's memory: that it gave back may still be in use by what it queued.
        target = torch.empty_like(host, device=self._device.torch_device)
        self._stream.wait_stream(self._device.current_stream())
        with self._stream:
            target.copy_(host, non_blocking=True)
            copied = self._device.event()
            copied.record(self._stream)
        self._device.keep_until_done(target, self._stream)
        return target, copied

    def wait(self) -> None:
        """Makes the computation wait for all copies that were begun."""
        self._device.current_stream().wait_stream(self._stream)


def side_copies(device: Device) -> SideCopies | None:
    """Returns copies beside the computation, or None if the device has no streams or cannot lock
    host memory: such copies hold the host up anyway."""
    if device.is_cpu or not device.can_pin or device.stream() is None:
        return None
    return SideCopies(device)


def _copy(source: Any, target: Any) -> None:
    from volano.task import tensors_of

    for from_tensor, to_tensor in zip(tensors_of(source), tensors_of(target), strict=True):
        to_tensor.copy_(from_tensor, non_blocking=True)


@contextlib.contextmanager
def copies_without_waiting(on_copy: Callable[[str], None]) -> Iterator[None]:
    """Returns a context in which ``tensor.to(device)`` and its like from page-locked host memory
    return before the copy is done, unless the caller says otherwise.

    Args:
        on_copy: the function that hears in words that it was done.
    """
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not Device().can_pin:
        yield
        return
    names = [name for name in ("to", accelerator.type) if hasattr(torch.Tensor, name)]
    for name in names:
        setattr(torch.Tensor, name, _not_waiting(getattr(torch.Tensor, name), name, on_copy))
    try:
        yield
    finally:
        for name in names:  # they are inherited
            delattr(torch.Tensor, name)


def _not_waiting(
    original: Callable[..., Any], name: str, on_copy: Callable[[str], None]
) -> Callable[..., Any]:
    """Returns a method of tensors that copies to a device without waiting for it."""

    @functools.wraps(original)
    def copy(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if (
            len(args) < 2  # the second or third positional argument is `non_blocking`
            and "non_blocking" not in kwargs
            and tensor.device.type == "cpu"
            and (name != "to" or _is_accelerator(args[0] if args else kwargs.get("device")))
            and tensor.is_pinned()
        ):
            on_copy("copies to the device without waiting")
            kwargs["non_blocking"] = True
        return original(tensor, *args, **kwargs)

    return copy


def _is_accelerator(target: Any) -> bool:
    # A number is the index of an accelerator.
    if isinstance(target, str):
        target = torch.device(target)
    return isinstance(target, int) or (isinstance(target, torch.device) and target.type != "cpu")
