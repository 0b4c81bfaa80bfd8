"""Digests that are computed before they are asked for, so that the host does not wait for them.

The host reads digests, and finds by them what was kept. Computed within a step, they come after all
that the device has still to do, and the host would wait for that at each step. What enters the
frozen part as it lies in the batch is digested one batch ahead instead: before the device begins
with the step of the batch before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from volano.device import Device
from volano.device.torch_private import version_of
from volano.task import Batch, tensors_of
from volano.training.prefix.row_digests import Digest, RowDigests

# The batch in use, and the next one.
_NUM_ANNOUNCED = 2
# Constants (a table, a mask of the model's) whose digests are remembered; each keeps its memory.
_MOST_CONSTANTS = 8

_Places = tuple[int, ...]  # of the tensors that enter a region, among those of the batch


@dataclass
class _Announced:
    """A batch of which digests are on their way to the host.

    Attributes:
        tensors: its tensors. They are held, so that what lies in their memory is a part of them.
        versions: counts of the writes to them.
        queued: places of tensors -> their digests, int64 [rows, 2] on the host, and the function
            that waits until they are there.
    """

    tensors: list[Tensor]
    versions: list[int]
    queued: dict[_Places, tuple[Tensor, Callable[[], object]]]

    def find(self, tensors: Sequence[Tensor]) -> tuple[_Places, int] | None:
        """Returns which of the batch's tensors these are rows of, and the first row; None if one of
        them is not, or was written."""
        found = [self._find(tensor) for tensor in tensors]
        rows = {row for _, row in found}
        if len(rows) != 1 or -1 in rows:
            return None
        return tuple(place for place, _ in found), rows.pop()

    def _find(self, tensor: Tensor) -> tuple[int, int]:
        for place, whole in enumerate(self.tensors):
            row = _row_in(tensor, whole)
            if row is not None and version_of(tensor) == self.versions[place]:
                return place, row
        return -1, -1


class EarlyDigests(RowDigests):
    """Digests of what enters the frozen part, of batches that were announced.

    Args:
        device: the device on which batches lie.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device.torch_device)
        self._device = device
        self._entering: dict[int, _Places] = {}  # by region, as they entered it last
        self._announced: deque[_Announced] = deque(maxlen=_NUM_ANNOUNCED)
        self._constants: dict[Any, tuple[Tensor, int, Digest]] = {}

    def announce(self, batch: Batch) -> None:
        """Begins to compute the digests of a batch whose step comes after the next one."""
        tensors = list(tensors_of(batch))
        queued = {}
        for places in set(self._entering.values()):
            entering = [tensors[place] for place in places if place < len(tensors)]
            counts = {t.shape[0] if t.ndim else None for t in entering}
            if len(entering) == len(places) and len(counts) == 1 and None not in counts:
                digests = self._device.to_host(self.multilinear(entering))
                queued[places] = digests, self._device.mark()
        self._announced.append(_Announced(tensors, list(map(version_of, tensors)), queued))

    def of_region(self, region: int, tensors: Sequence[Tensor]) -> list[Digest]:
        """Returns a digest for each row of the tensors that enter a region."""
        for batch in self._announced:
            found = batch.find(tensors)
            if found is None:
                continue
            places, first = found
            self._entering[region] = places
            if places in batch.queued:
                digests, wait = batch.queued[places]
                wait()
                return [tuple(row) for row in digests[first : first + len(tensors[0])].tolist()]
        return self(tensors)

    def of_constant(self, tensor: Tensor) -> Digest:
        """Returns the digest of a tensor that is no batch's, such as a buffer; that of the same
        memory again, unless it was written."""
        if self._device.is_cpu:
            return super().of_constant(tensor)
        key = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        known = self._constants.get(key)
        if known is None or known[1] != version_of(tensor):
            # Held, so that no other tensor gets its memory.
            known = tensor, version_of(tensor), super().of_constant(tensor)
            self._constants[key] = known
            if len(self._constants) > _MOST_CONSTANTS:
                del self._constants[next(iter(self._constants))]
        return known[2]


def _row_in(tensor: Tensor, whole: Tensor) -> int | None:
    """Returns the row of another tensor at which a tensor begins that is some of its rows, in its
    memory; None if it is not."""
    if not (tensor.ndim and tensor.ndim == whole.ndim and tensor.dtype == whole.dtype):
        return None
    if tensor.shape[1:] != whole.shape[1:] or tensor.stride() != whole.stride():
        return None
    row_bytes = whole.stride(0) * whole.element_size()
    if not row_bytes or tensor.device != whole.device:
        return None
    row, rest = divmod(tensor.data_ptr() - whole.data_ptr(), row_bytes)
    return None if rest or not 0 <= row <= len(whole) - len(tensor) else row
