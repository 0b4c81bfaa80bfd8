"""The outermost call of a model in training mode: the place for precision, memory format and
compilation.

Most scripts compute the loss outside of the model, so what comes out of a narrower type is widened
to fp32, as Accelerate does.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from volano.device import Device
from volano.device.torch_private import (
    current_graph_task_id,
    is_compiled,
    is_transformed,
    load_compiler,
)
from volano.script.loss_scaling import LossScaling
from volano.script.main_program import after_import
from volano.script.notes import Notes
from volano.script.plan import ScriptPlan
from volano.task import is_mapping, map_tensors

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The settings of a plan that concern a model's call.

    Attributes:
        precision: ``"bf16"``, ``"fp16"``, or None.
        is_channels_last: whether 4-dimensional tensors lie in channels_last.
        compile: mode of ``torch.compile``, or None.
    """

    precision: str | None
    is_channels_last: bool
    compile: str | None

    @classmethod
    def of(cls, plan: ScriptPlan) -> ModelSettings | None:
        """Returns a plan's settings; None if it has none of them."""
        precision = plan.precision if plan.precision in _DTYPES else None
        is_channels_last = plan.memory_format == "channels_last"
        if precision is None and not is_channels_last and plan.compile is None:
            return None
        return cls(precision=precision, is_channels_last=is_channels_last, compile=plan.compile)


@contextlib.contextmanager
def model_calls_treated(settings: ModelSettings, notes: Notes) -> Iterator[None]:
    """Returns a context in which the outermost call of every model that is trained goes through
    the plan's settings."""
    roots = _Roots(settings, notes)
    with contextlib.ExitStack() as stack:
        stack.enter_context(outermost_calls(roots.call))
        if roots.scaling is not None:
            stack.enter_context(roots.scaling.installed())
        if settings.is_channels_last:
            after_import("safetensors.torch", lambda: _save_in_usual_format(stack))
        yield


def _save_in_usual_format(stack: contextlib.ExitStack) -> None:
    """Has safetensors, which refuses other formats, write channels_last as it is without a plan."""
    module: Any = sys.modules["safetensors.torch"]
    for name in ("save_file", "save"):
        original = getattr(module, name, None)
        if original is not None:  # it is that, which has imported torch
            setattr(module, name, _in_usual_format(original))
            stack.callback(setattr, module, name, original)


def _in_usual_format(save: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(save)
    def saved(tensors: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        usual = {
            name: tensor.contiguous()
            if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
            else tensor
            for name, tensor in tensors.items()
        }
        return save(usual, *args, **kwargs)

    return saved


@contextlib.contextmanager
def outermost_calls(treat: Callable[..., Any]) -> Iterator[None]:
    """Returns a context in which the outermost call of every model in training mode, with gradients
    on, is ``treat(module, original, args, kwargs)``."""
    original: Any = nn.Module.__call__
    here, is_compiling = _Here(), torch.compiler.is_compiling

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # Every module comes by: the usual case, a part of a model, leaves at once. The compiler
        # sees a constant in the first question, and nothing of the others.
        if is_compiling() or here.is_inside or not module.training or not torch.is_grad_enabled():
            return original(module, *args, **kwargs)
        here.is_inside = True
        try:
            return treat(module, original, args, kwargs)
        finally:
            here.is_inside = False

    nn.Module.__call__ = call  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        nn.Module.__call__ = original


def is_computed_again() -> bool:
    """Returns whether a module that is called now for the first time is a part of one that was
    called before, computed again for a backward pass (``torch.utils.checkpoint``)."""
    return current_graph_task_id() != -1


class _Here(threading.local):
    """A note whether this thread is inside of a model's call: replicas run in threads."""

    is_inside = False


@dataclass(frozen=True)
class _Root:
    """An outermost module: the type of its device, the precision in which it can run there, and
    what is called if it is compiled."""

    device: str
    precision: str | None
    compiled: Callable[..., Any] | None = None


class _Roots:
    """The outermost modules, each looked at when it is called first."""

    def __init__(self, settings: ModelSettings, notes: Notes) -> None:
        self._settings, self._notes = settings, notes
        self.scaling = LossScaling(notes) if settings.precision == "fp16" else None
        self._known: weakref.WeakKeyDictionary[nn.Module, _Root | None] = (
            weakref.WeakKeyDictionary()
        )

    def call(
        self,
        module: nn.Module,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Calls an outermost module under the settings."""
        if is_transformed():  # where nothing of a module can be changed
            return original(module, *args, **kwargs)
        root = self._known[module] if module in self._known else self._prepare(module)
        if root is None:
            return original(module, *args, **kwargs)
        if self._settings.is_channels_last:
            args, kwargs = map_tensors(_in_channels_last, (args, kwargs))
        function = original if root.compiled is None else root.compiled
        own = (module,) if root.compiled is None else ()
        # Asked at each call: a script may have its own autocast around some of them.
        if root.precision is None or torch.is_autocast_enabled(root.device):
            return function(*own, *args, **kwargs)
        if self.scaling is not None:
            # At each call: what is trained may change.
            self.scaling.watch([p for p in module.parameters() if p.requires_grad])
            args, kwargs = map_tensors(self.scaling.entering, (args, kwargs))
        with torch.autocast(root.device, dtype=_DTYPES[root.precision]):
            result = function(*own, *args, **kwargs)
        result = map_output(_widened, result)
        return result if self.scaling is None else map_output(self.scaling.leaving, result)

    def _prepare(self, module: nn.Module) -> _Root | None:
        """Looks at an outermost module, and brings it into the memory format."""
        if is_computed_again():
            return None
        parameters = list(module.parameters())
        # Asked again at its next call: a lazy one has its shapes then, and torch.func's
        # functional_call has put others in the place of its parameters.
        if any(is_lazy(one) or not isinstance(one, nn.Parameter) for one in parameters):
            return None
        root = self._known[module] = self._root_of(module, parameters)
        if root is not None:
            self._say(module, root)
        return root

    def _root_of(self, module: nn.Module, parameters: list[nn.Parameter]) -> _Root | None:
        # A loss function or a transform has nothing to train; neither has a teacher.
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not trained:
            return None
        name = type(module).__name__
        precision = self._settings.precision
        types = {parameter.dtype for parameter in trained if parameter.is_floating_point()}
        if precision is not None and types - {torch.float32}:
            self._notes.left(f"{name} has parameters in another type than fp32: left as it is")
            return None
        # Said before it is done: what fails in it is a failure of the plan.
        if self._settings.is_channels_last:
            self._notes.did(f"{name} in channels_last")
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        compiled = None
        if self._settings.compile is not None:
            if any(map(is_compiled, module.modules())):
                self._notes.left(f"{name} is compiled by the script")
            else:
                self._notes.did(f"{name} compiled")
                load_compiler()
                compiled = torch.compile(module, mode=self._settings.compile)
        device = trained[0].device
        if precision is not None and not Device(str(device)).supports(precision):
            self._notes.left(f"{device} does not compute in {precision}")
            precision = None
        return _Root(device.type, precision, compiled)

    def _say(self, module: nn.Module, root: _Root) -> None:
        name = type(module).__name__
        if root.precision is not None:
            if torch.is_autocast_enabled(root.device):
                self._notes.left(f"{name} has the script's own autocast")
            else:
                self._notes.did(f"{name} in {root.precision}")


def map_output(function: Callable[[Tensor], Any], output: Any) -> Any:
    """Returns what a model gives with a function applied to every tensor, those in the fields of a
    dataclass of the script's too."""
    if not dataclasses.is_dataclass(output) or isinstance(output, type) or is_mapping(output):
        return map_tensors(function, output)
    mapped = copy.copy(output)
    for declared in dataclasses.fields(output):
        value = map_tensors(function, getattr(output, declared.name))
        object.__setattr__(mapped, declared.name, value)  # a frozen one too
    return mapped


def _in_channels_last(tensor: Tensor) -> Tensor:
    if tensor.ndim != 4 or not tensor.is_floating_point():
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _DTYPES.values() else tensor
