"""A model's buffers by their places, and what a step that fails may have done to tensors of which
there is no copy.

A forward pass may write into a buffer, or put another tensor in its place (``self.mean = 0.9 *
self.mean + ...``): a list of tensors would then hold what the model no longer uses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from volano.device.torch_private import AnyTrackingNorm, buffers_of, foreach_copy_, version_of
from volano.errors import RunError

BufferPlace = tuple[dict[str, Tensor | None], str]  # a module's buffers and a name among them
# Of a page (sysconf(3)): buffers up to it are copied before each step, and those of normalisation
# layers.
_SMALL_BYTES = 4096
_NARROW = (torch.bfloat16, torch.float16)
# Types of quantisation have no sum.
_SUMMED = (
    torch.float32,
    torch.float64,
    *_NARROW,
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
)


def places_of(
    model: nn.Module, is_wanted: Callable[[nn.Module, Tensor | None], bool] | None = None
) -> list[BufferPlace]:
    """Returns the places of a model's buffers, those that are None too; all of them, or the wanted
    ones."""
    return [
        (buffers_of(module), name)
        for module in model.modules()
        for name, buffer in buffers_of(module).items()
        if is_wanted is None or is_wanted(module, buffer)
    ]


def is_small(module: nn.Module, buffer: Tensor | None) -> bool:
    """Returns whether a buffer is small enough to be copied before each step, as statistics are."""
    return buffer is None or isinstance(module, AnyTrackingNorm) or buffer.nbytes <= _SMALL_BYTES


def tensors_at(places: Iterable[BufferPlace]) -> list[Any]:
    """Returns the tensors that stand at these places now."""
    return [held.get(name) for held, name in places]


def are_same(ours: list[Any], theirs: list[Any]) -> bool:
    """Returns whether two lists of one length hold the very same objects."""
    return all(map(is_, ours, theirs))


class SavedBuffers:
    """Copies of buffers, and which tensors they were.

    Args:
        places: the places of the buffers.
    """

    def __init__(self, places: list[BufferPlace]) -> None:
        self._places = places
        self._tensors: list[Tensor | None] = []
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []
        self._begin(tensors_at(places))

    def _begin(self, tensors: list[Tensor | None]) -> None:
        self._tensors = tensors
        # By type: torch copies a list of several types one by one, with a launch for each.
        by_type: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            if tensor is not None:
                by_type[tensor.dtype].append(tensor)
        self._pairs = [
            (sources, [source.detach().clone() for source in sources])
            for sources in by_type.values()
        ]

    @torch.no_grad()
    def save(self) -> None:
        """Takes copies. Queues work on the device, waits for nothing."""
        if not self._places:
            return
        now = tensors_at(self._places)
        if not are_same(now, self._tensors):
            self._begin(now)
            return
        for sources, copies in self._pairs:
            foreach_copy_(copies, sources)

    @torch.no_grad()
    def put_back(self) -> None:
        """The same tensors stand in their places, with the values that they had."""
        for (held, name), tensor in zip(self._places, self._tensors, strict=True):
            held[name] = tensor
        for sources, copies in self._pairs:
            foreach_copy_(sources, copies)


class Uncopied:
    """The tensors of a model of which there is no copy: a step can be repeated as long as they are
    as they were before it.

    Writing counts a tensor's version, but not through ``.data``. Who writes so mostly does in each
    step: sums over what a step does not train are compared around the first, and if one has changed
    no step is repeated.

    Args:
        model: the model, on its device.
        copied: places of the buffers that are copied.
    """

    def __init__(self, model: nn.Module, copied: list[BufferPlace]) -> None:
        own = {(id(held), name) for held, name in copied}
        self._places = [
            (held, name) for held, name in places_of(model) if (id(held), name) not in own
        ]
        self._parameters = list(model.parameters())
        self._frozen = [parameter for parameter in self._parameters if not parameter.requires_grad]
        self._buffers: list[Any] = []
        self._versions: list[int] = []
        self._sums: list[Tensor] | None = None
        self._is_first, self._is_written = True, False

    def note(self) -> None:
        """Notes the buffers before a step."""
        self._buffers = tensors_at(self._places)
        self._versions = self._versions_now()
        if self._is_first:
            self._sums = self._sums_now()

    def settle(self) -> None:
        """Settles the buffers after the gradients of a step. Reads the device after the first
        step."""
        if self._is_first and self._sums is not None:
            self._is_written = self._differ(self._sums)
            self._is_first, self._sums = False, None

    def put_back(self) -> None:
        """The buffers that stood there stand there again.

        Raises:
            RunError: they, or parameters, are not what they were.
        """
        for (held, name), tensor in zip(self._places, self._buffers, strict=True):
            held[name] = tensor
        is_written = self._is_written or (self._sums is not None and self._differ(self._sums))
        if is_written or self._versions_now() != self._versions:
            raise changed("a buffer or a parameter")

    def _versions_now(self) -> list[int]:
        return [
            *map(version_of, self._parameters),
            *(version_of(t) for t in self._buffers if t is not None),
        ]

    @torch.no_grad()
    def _sums_now(self) -> list[Tensor]:
        # A narrow type's sum would be rounded to three digits.
        return [
            tensor.sum(dtype=torch.float32 if tensor.dtype in _NARROW else None)
            for tensor in (*self._buffers, *self._frozen)
            if type(tensor) in (Tensor, nn.Parameter)
            and tensor.layout == torch.strided
            and tensor.dtype in _SUMMED
        ]

    def _differ(self, sums: list[Tensor]) -> bool:
        now = self._sums_now()
        return not all(
            torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(sums, now, strict=True)
        )


def changed(what: str) -> RunError:
    """Returns the error for something that a step changed and that cannot be put back."""
    return RunError(
        "A step that runs out of memory can be repeated only if it leaves its inputs unchanged",
        got=f"{what} that the objective, the augmentation or the model changes in place",
        remedy="Pin a smaller `micro_batch` from the start",
    )
