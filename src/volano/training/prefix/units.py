"""The frozen modules of a model, and their calls in one pass of the objective."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from volano.device.torch_private import AnyDropout, AnyTrackingNorm, tree_flatten, tree_map_only
from volano.task import Loss
from volano.training.memory.recompute import forwards_replaced
from volano.training.prefix.frozen_value import FrozenValue, Watcher, unmarked

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, torch.jit.ScriptModule)
# What a module may be given or may give beside tensors: values that say all of themselves.
_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, slice, torch.dtype, torch.device,
    torch.layout, torch.memory_format,
)  # fmt: skip


class PrefixMismatchError(Exception):
    """The error of a pass that is not like the one from which the frozen part was found."""


def frozen_units(model: nn.Module, opened: Collection[str] = ()) -> dict[str, nn.Module]:
    """Returns the outermost modules by name that train nothing and behave the same each time, as
    far as their classes and modes say. Of ``opened`` ones the parts count."""
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def walk(name: str, module: nn.Module) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        is_open = not name or name in opened or isinstance(module, _CONTAINERS)
        trains = any(parameter.requires_grad for parameter in module.parameters())
        if not (is_open or trains) and all(map(_is_settled, module.modules())):
            found[name] = module
            seen.update(map(id, module.modules()))
            return
        for child, part in module.named_children():
            walk(f"{name}.{child}" if name else child, part)

    walk("", model)
    return found


def has_parameters(module: nn.Module) -> bool:
    """Returns whether a module or a part of it has parameters."""
    return any(True for _ in module.parameters())


def _is_settled(module: nn.Module) -> bool:
    """Checks whether a module neither drops nor takes statistics of batches."""
    if isinstance(module, AnyDropout):
        return not module.training or module.p == 0
    return not (isinstance(module, AnyTrackingNorm) and module.training)


class UnitPass(Watcher):
    """A pass of the objective in which the calls of frozen modules go through this object.

    Args:
        units: the modules by name.
        constants: ids of tensors that stay as they are.
        count: the examples of the batch.
    """

    def __init__(
        self, units: Mapping[str, nn.Module], constants: Collection[int], count: int
    ) -> None:
        self.constants = constants
        self._units, self._count = units, count

    @abstractmethod
    def call(self, name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Returns the result of a module's forward pass."""

    def run(self, objective: Callable[[], Any]) -> Any:
        """Returns the objective's result."""
        routed = [
            (module, _Routed(self, name, module.forward)) for name, module in self._units.items()
        ]
        with forwards_replaced(routed):
            result = objective()
        return self._released(result)

    def _released(self, result: Any) -> Any:
        """Returns an objective's result with plain tensors."""
        if isinstance(result, Loss):
            tensors = [result.total, result.weight, *result.metrics.values()]
            if frozen := [value for value in tensors if isinstance(value, FrozenValue)]:
                self.note_use(frozen, "the loss")
                return Loss(
                    total=_plain(result.total),
                    weight=_plain(result.weight),
                    metrics={name: _plain(value) for name, value in result.metrics.items()},
                )
        elif isinstance(result, FrozenValue):
            self.note_use([result], "the loss")
            return unmarked(result)
        return result


def _plain(value: Any) -> Any:
    return unmarked(value) if isinstance(value, Tensor) else value


class _Routed:
    """The forward pass of a module, which goes through a pass."""

    def __init__(self, through: UnitPass, name: str, forward: Callable[..., Any]) -> None:
        self._through, self._name, self._forward = through, name, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._through.call(self._name, self._forward, args, kwargs)


class CallInputs:
    """The inputs of a module's call: tensors, and the rest as one value that can be compared.

    Attributes:
        tensors: all tensors in it, in order.
        frozen: those that are frozen values.
        settings: all but the tensors; None if it holds what does not say all of itself.
    """

    def __init__(self, args: Any, kwargs: Any) -> None:
        leaves, spec = tree_flatten((args, kwargs))
        self._given = args, kwargs
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self.frozen = [tensor for tensor in self.tensors if isinstance(tensor, FrozenValue)]
        others = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
        self.settings = (
            (str(spec), tuple(map(repr, others)))
            if all(isinstance(leaf, _PLAIN) for leaf in others)
            else None
        )

    def rows_and_others(self, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the plain tensors that hold an example in each row, and the others.

        Raises:
            PrefixMismatchError: there are no rows, or what cannot be compared.
        """
        rows, others = list[Tensor](), list[Tensor]()
        for tensor in map(unmarked, self.tensors):
            (rows if tensor.ndim and tensor.shape[0] == count else others).append(tensor)
        if not rows or self.settings is None:
            raise PrefixMismatchError("its input is no batch of examples")
        return rows, others

    def plain(self) -> tuple[Any, Any]:
        """Returns arguments and keywords with plain tensors."""
        return self._given if not self.frozen else tree_map_only(Tensor, unmarked, self._given)


def is_plain_result(leaves: list[Any]) -> bool:
    """Returns whether a result holds nothing but tensors and values that say all of themselves."""
    return all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves)
