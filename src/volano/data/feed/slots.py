"""The slots: host memory that is allocated once and filled again and again, a batch at a time.

A worker process writes a batch's tensors into a slot and sends only their places; the training
process looks at the same memory. On an accelerator that allows it, a slot is page-locked, so that
the copy to the device reads it directly.
"""

from __future__ import annotations

import mmap
import os
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volano.device import Device
from volano.task import Batch

# Every tensor begins at a multiple of a cache line, which is a multiple of every element size too.
_ALIGNMENT = 64
# Batches differ a little in size (padded text); one that does not fit travels outside of slots.
_ROOM = 1.25


@dataclass(frozen=True, slots=True)
class Placed:
    """A contiguous tensor that lies in a slot: its place, and its shape and type. It stands for the
    tensor in a message."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class SlotWriter:
    """A writer that puts the tensors of one batch into a slot.

    Args:
        memory: the slot, uint8 [bytes].
    """

    def __init__(self, memory: Tensor) -> None:
        self._memory = memory
        self._used = 0
        self._offsets: dict[int, int] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """Returns an uninitialised tensor in the slot, or None if it does not fit."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not size or self._used + size > len(self._memory):
            return None
        tensor = self._memory[self._used : self._used + size].view(dtype).view(shape)
        self._offsets[tensor.data_ptr()] = self._used
        self._used = _aligned(self._used + size)
        return tensor

    def packed(self, batch: Batch) -> Batch:
        """Returns the batch with :class:`Placed` for each tensor that is in the slot now. Others
        are left as they are."""
        return _map(_is_tensor, self._place, batch) if is_plain_batch(batch) else batch

    def _place(self, tensor: Tensor) -> Placed | Tensor:
        if not fits_a_slot(tensor):
            return tensor
        offset = self._offsets.get(tensor.data_ptr())
        if offset is None:
            copy = self.empty(tuple(tensor.shape), tensor.dtype)
            if copy is None:
                return tensor
            copy.copy_(tensor)
            offset = self._offsets[copy.data_ptr()]
        return Placed(offset, tuple(tensor.shape), tensor.dtype)


def fits_a_slot(tensor: Tensor) -> bool:
    """Checks whether a tensor comes out of a slot as it went in: an ordinary, contiguous one on the
    host without a graph."""
    if (
        type(tensor) is not Tensor
        or tensor.layout is not torch.strided
        or not tensor.is_cpu
        or tensor.is_quantized
    ):
        return False
    return tensor.is_contiguous() and not (
        tensor.requires_grad or tensor.is_conj() or tensor.is_neg()
    )


def is_plain_batch(batch: Batch) -> bool:
    """Checks whether a batch consists of tuples, lists and dicts: other containers must not be
    taken apart."""
    if isinstance(batch, Mapping):
        return type(batch) is dict and all(map(is_plain_batch, batch.values()))
    if isinstance(batch, tuple | list):
        known = type(batch) in (tuple, list) or hasattr(batch, "_fields")
        return known and all(map(is_plain_batch, batch))
    return True


def unpacked(batch: Batch, memory: Tensor) -> Batch:
    """Restores a batch from :meth:`SlotWriter.packed`: views of the slot's memory, uint8
    [bytes]."""

    def view(placed: Placed) -> Tensor:
        size = int(np.prod(placed.shape, dtype=np.int64)) * placed.dtype.itemsize
        return memory[placed.offset : placed.offset + size].view(placed.dtype).view(placed.shape)

    return (
        _map(lambda leaf: isinstance(leaf, Placed), view, batch) if is_plain_batch(batch) else batch
    )


def bytes_in_slot(batch: Batch) -> int:
    """Returns the bytes that this batch takes in a slot; 0 if it holds no tensor that fits one."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> None:
        if fits_a_slot(tensor):
            sizes.append(_aligned(tensor.numel() * tensor.element_size()))

    if is_plain_batch(batch):
        _map(_is_tensor, note, batch)
    return sum(sizes)


def with_room(num_bytes: int) -> int:
    """Returns the bytes of a slot for batches of about ``num_bytes``, in whole pages."""
    return -(-int(_ROOM * num_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE


class Slots:
    """A number of slots of equal size, and which of them may be written to.

    On the CPU a slot is free again when no tensor that lies in it is alive. On another device it is
    free when the copy to the device has read it.

    Args:
        device: the device to which the batches go.
        num: number of slots.
        num_bytes: bytes of each slot.
        shared: whether worker processes write to them. ``file`` is then what they map.
        on_throttled: called with the seconds for which :meth:`acquire` has waited for the device.
    """

    def __init__(
        self,
        device: Device,
        num: int,
        num_bytes: int,
        *,
        shared: bool,
        on_throttled: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._on_throttled = on_throttled
        self.num, self.num_bytes, self.file = num, num_bytes, None
        self._device = device
        self._held: dict[int, Callable[[], bool]] = {}
        self._copied: dict[int, torch.Event] = {}
        self._locked: Tensor | None = None
        if shared:
            self.file = os.memfd_create("volano-slots")
            os.ftruncate(self.file, num * num_bytes)
            self._array = map_slots(self.file, num, num_bytes)
            whole = torch.from_numpy(self._array)
            if device.lock_pages(whole):
                self._locked = whole
        elif device.can_pin:
            self._locked = torch.empty(num, num_bytes, dtype=torch.uint8).pin_memory()
        else:
            self._array = np.empty((num, num_bytes), dtype=np.uint8)

    @property
    def copies_beside(self) -> bool:
        """The answer whether copies from the slots run in parallel to the computation, if the
        device has any."""
        return self._device.is_cpu or not self._device.can_pin or self._locked is not None

    def acquire(self) -> int | None:
        """Returns a slot that may be written to; None if the consumer holds all of them.

        On an accelerator it waits for the oldest copy instead.
        """
        slot = next((slot for slot in range(self.num) if not self._is_held(slot)), None)
        if slot is None and self._copied:
            slot = next(iter(self._copied))
            start = time.perf_counter()
            self._copied.pop(slot).synchronize()
            self._on_throttled(time.perf_counter() - start)
        if slot is not None:
            self._held[slot] = lambda: True  # until `memory` or `release` says what holds it
        return slot

    def memory(self, slot: int) -> Tensor:
        """Returns the slot's memory, uint8 [bytes], to read or to write. On the CPU the slot is
        held until no view of it is left."""
        if self._locked is not None:
            return self._locked[slot]
        lease = self._array[slot]
        # The tensor's memory keeps the array alive, and every view keeps the memory.
        held = weakref.ref(lease)
        if self._device.is_cpu:
            self._held[slot] = lambda: held() is not None
        return torch.from_numpy(lease)

    def release(self, slot: int, copied: torch.Event | None) -> None:
        """Declares the slot free when ``copied`` has happened, or at once."""
        if copied is None:
            self._held.pop(slot, None)
        else:
            self._copied[slot] = copied
            self._held[slot] = lambda: not copied.query()

    def close(self) -> None:
        """Gives up the memory once no copy reads it any more."""
        for copied in self._copied.values():
            if not copied.query():
                copied.synchronize()
        self._copied.clear()
        if self.file is not None:
            if self._locked is not None:
                self._device.unlock_pages(self._locked)
            os.close(self.file)
            self.file = None

    def _is_held(self, slot: int) -> bool:
        held = self._held.get(slot)
        if held is not None and held():
            return True
        self._copied.pop(slot, None)
        return False


def can_share() -> bool:
    """Checks whether worker processes can be given memory that is allocated after they began."""
    # An anonymous file is bounded by memory, not by the size of /dev/shm, which containers keep at
    # 64 MB.
    return hasattr(os, "memfd_create")


def map_slots(file: int, num: int, num_bytes: int) -> np.ndarray:
    """Maps the memory of ``num`` slots, uint8 [num, bytes], into this process."""
    return np.frombuffer(mmap.mmap(file, num * num_bytes), dtype=np.uint8).reshape(num, num_bytes)


def _map(selects: Callable[[Any], bool], function: Callable[[Any], Any], batch: Batch) -> Batch:
    if selects(batch):
        return function(batch)
    if isinstance(batch, dict):
        return {key: _map(selects, function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_map(selects, function, item) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_map(selects, function, item) for item in batch)
    return batch


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
