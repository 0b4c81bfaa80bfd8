"""Optimizers of a script, made with their one-kernel update where they have one."""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

from volano.script.model_calls import Notes

# Settings by which a script chooses an implementation itself, or with which the fused one is
# another function.
_CHOICES = ("fused", "foreach", "capturable", "differentiable")


@contextlib.contextmanager
def optimizers_fused(notes: Notes) -> Iterator[None]:
    """Returns a context in which optimizers of torch are made fused if they have it here and the
    script has not chosen otherwise."""
    made: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
    is_making: list[bool] = []
    with contextlib.ExitStack() as stack:
        for kind in _with_fused():
            original = kind.__init__
            stack.callback(setattr, kind, "__init__", original)
            kind.__init__ = _maker(kind, original, made, is_making, notes)
        try:
            yield
        finally:
            for optimizer in made:
                for group in optimizer.param_groups:
                    group["fused"] = None


def _with_fused() -> list[Any]:
    kinds = [value for value in vars(torch.optim).values() if isinstance(value, type)]
    return [
        kind
        for kind in kinds
        if issubclass(kind, torch.optim.Optimizer)
        and "fused" in inspect.signature(vars(kind).get("__init__", object)).parameters
    ]


def _maker(
    kind: type,
    original: Callable[..., None],
    made: weakref.WeakSet[torch.optim.Optimizer],
    is_making: list[bool],
    notes: Notes,
) -> Callable[..., None]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        # A subclass of a person's own may have another update; AdamW calls Adam.
        if is_making or type(self) is not kind:
            return original(self, *args, **kwargs)
        is_making.append(True)
        try:
            try:
                bound = signature.bind(self, *args, **kwargs)
            except TypeError:
                return original(self, *args, **kwargs)  # with its own message
            given = bound.arguments
            if not isinstance(given.get("params"), dict | list | torch.Tensor):
                given["params"] = list(given["params"])  # it may be made twice
            if any(given.get(name) is not None and given[name] is not False for name in _CHOICES):
                notes.left(f"{kind.__name__} has an implementation that the script chose")
                return original(*bound.args, **bound.kwargs)
            if _made_fused(original, bound):
                made.add(self)
                notes.did(f"{kind.__name__} fused")
                return None
            notes.left(f"{kind.__name__} has no fused update for these parameters here")
            return original(*bound.args, **bound.kwargs)
        finally:
            is_making.pop()

    return make


def _made_fused(original: Callable[..., None], bound: inspect.BoundArguments) -> bool:
    try:
        original(*bound.args, **{**bound.kwargs, "fused": True})
    except Exception:  # noqa: BLE001 - what is wrong anyway is said when it is made plainly
        return False
    return True
