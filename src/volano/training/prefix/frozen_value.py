"""Follows what the frozen modules of a model compute, to where something else uses it.

A frozen value is a tensor that follows from a frozen module's output alone. Torch's functions of
frozen values are frozen too, until one needs a gradient, takes another tensor, reads a number or
draws: there the value is *used*. What is used is the boundary of the frozen part; if its modules
do not run, nothing else of it is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from volano.device.torch_private import plain_functions, tree_iter, tree_map_only

Source = tuple[int, int]  # the number of a call in a pass, and of a tensor in its result
# Functions whose result is no tensor and follows from values.
_READS = {
    "item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__complex__",
    "is_nonzero", "equal", "allclose", "__array__", "__contains__", "__repr__", "__format__",
    "data_ptr", "storage", "untyped_storage",
}  # fmt: skip

_WRITES = {
    "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__ipow__",
    "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__", "__imod__", "__set__",
}  # fmt: skip


class Watcher(ABC):
    """A watcher of the frozen values of one pass.

    Attributes:
        constants: ids of tensors that stay as they are: frozen parameters and buffers.
    """

    constants: Collection[int] = ()

    @abstractmethod
    def note_use(self, values: list[FrozenValue], name: str) -> None:
        """Hears that a function uses frozen values."""

    def has_drawn(self) -> bool:
        """Checks whether random numbers were drawn since the last call."""
        return False


class FrozenValue(Tensor):
    """A tensor that follows from the outputs of frozen modules alone.

    Attributes:
        watcher: the watcher of the pass.
        region: the frozen part of the model from which it comes.
        sources: the outputs from which it follows.
        is_real: whether its numbers are those that the modules compute; otherwise it only stands
            in, with NaN.
    """

    watcher: Watcher
    region: object
    sources: frozenset[Source]
    is_real: bool

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function of torch; see ``Tensor.__torch_function__``."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)]
        frozen: list[FrozenValue] = [one for one in tensors if isinstance(one, cls)]
        watcher = frozen[0].watcher
        watcher.has_drawn()  # from here on
        with plain_functions():
            result = _called(func, args, kwargs, frozen)
            needs_gradient = any(
                leaf.requires_grad for leaf in tree_iter(result) if isinstance(leaf, Tensor)
            )
        first, name = frozen[0], getattr(func, "__name__", "")
        is_alone = len(frozen) == len(tensors) or all(
            isinstance(tensor, cls) or id(tensor) in watcher.constants for tensor in tensors
        )
        if (
            name in _READS
            or needs_gradient
            or not is_alone
            or _writes_elsewhere(name, args, kwargs)
            or any(value.region is not first.region for value in frozen)
            or watcher.has_drawn()
        ):
            watcher.note_use(frozen, name)
            return tree_map_only(Tensor, unmarked, result)
        sources = frozenset().union(*(value.sources for value in frozen))
        is_real = all(value.is_real for value in frozen)
        return tree_map_only(
            Tensor, lambda made: marked(made, watcher, first.region, sources, is_real), result
        )


def _writes_elsewhere(name: str, args: Any, kwargs: Any) -> bool:
    """Checks whether a function writes into a tensor that is no frozen value."""
    is_special = name.startswith("__") and name.endswith("__")
    writes = name in _WRITES if is_special else name.endswith("_") or "out" in kwargs
    return writes and not isinstance(kwargs.get("out", args[0] if args else None), FrozenValue)


def _called(func: Any, args: Any, kwargs: Any, frozen: list[FrozenValue]) -> Any:
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        if all(value.is_real for value in frozen):
            raise
    # A function in place cannot write to a stand-in, which is one number seen as many.
    args, kwargs = tree_map_only(FrozenValue, lambda value: value.clone(), (args, kwargs))
    return func(*args, **kwargs)


def marked(
    tensor: Tensor, watcher: Watcher, region: object, sources: frozenset[Source], is_real: bool
) -> FrozenValue:
    """Returns a tensor as a frozen value that shares its memory."""
    with plain_functions():
        value = tensor.as_subclass(FrozenValue)
    value.watcher, value.region, value.sources, value.is_real = watcher, region, sources, is_real
    return value


def unmarked(tensor: Tensor) -> Tensor:
    """Returns a frozen value as the plain tensor that it is; any other tensor as it is."""
    if not isinstance(tensor, FrozenValue):
        return tensor
    with plain_functions():
        return tensor.as_subclass(Tensor)


def stand_in(count: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns rows in the place of a result that nothing uses: one number seen as many, which takes
    no memory. It is NaN, so that what gets past all checks is a loss of NaN."""
    value = float("nan") if dtype.is_floating_point or dtype.is_complex else 0
    one = torch.full((1,) * (1 + len(shape)), value, dtype=dtype, device=device)
    return one.expand(count, *shape)
