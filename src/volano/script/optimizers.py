"""Optimizers of a script, made with their one-kernel update where they have one."""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from volano.device import Device
from volano.device.torch_private import step_hooks_suspended
from volano.errors import UsageError
from volano.script.hosts import IMPLEMENTATIONS
from volano.script.notes import Notes


def after_closure(
    args: tuple[Any, ...], kwargs: dict[str, Any], then: Callable[[], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Returns the arguments of an optimizer's step with a closure that calls ``then`` when it has
    computed the gradient; None if they have no closure."""
    closure = next((value for value in (*args[1:], *kwargs.values()) if callable(value)), None)
    if closure is None:
        return None

    @functools.wraps(closure)
    def called(*own: Any, **named: Any) -> Any:
        result = closure(*own, **named)
        then()
        return result

    return (
        tuple(called if value is closure else value for value in args),
        {name: called if value is closure else value for name, value in kwargs.items()},
    )


@contextlib.contextmanager
def optimizers_fused(notes: Notes) -> Iterator[None]:
    """Returns a context in which optimizers of torch are made fused if they have it here and the
    script has not chosen otherwise."""
    made: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[Any]] = weakref.WeakKeyDictionary()
    is_making: list[bool] = []
    with contextlib.ExitStack() as stack:
        for kind in _with_fused():
            stack.callback(setattr, kind, "__init__", kind.__init__)
            kind.__init__ = _maker(kind, made, is_making, notes)
        try:
            yield
        finally:
            for optimizer, hooks in made.items():
                for group in optimizer.param_groups:
                    group["fused"] = None
                for hook in hooks:
                    hook.remove()


def _with_fused() -> list[Any]:
    kinds = [value for value in vars(torch.optim).values() if isinstance(value, type)]
    return [
        kind
        for kind in kinds
        if issubclass(kind, torch.optim.Optimizer)
        and "fused" in inspect.signature(vars(kind).get("__init__", object)).parameters
    ]


def _maker(
    kind: Any,
    made: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[Any]],
    is_making: list[bool],
    notes: Notes,
) -> Callable[..., None]:
    """Returns a constructor of a class of torch that asks for the fused update."""
    original = kind.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        # A subclass of a person's own may have another update; AdamW calls Adam.
        if is_making or type(self) is not kind:
            return original(self, *args, **kwargs)
        is_making.append(True)
        try:
            bound = signature.bind(self, *args, **kwargs)
            given = bound.arguments
            if isinstance(given["params"], Iterator):
                given["params"] = list(given["params"])  # looked at, and taken
            reason = _why_as_given(kind, given)
            if reason is None:
                original(*bound.args, **{**bound.kwargs, "fused": True})
                made[self] = _stored_as_given(self, given.get("fused"))
                return notes.did(f"{kind.__name__} fused")
            notes.left(f"{kind.__name__} {reason}")
            return original(*bound.args, **bound.kwargs)
        finally:
            is_making.pop()

    return make


def _stored_as_given(optimizer: torch.optim.Optimizer, own: Any) -> list[Any]:
    """Has the optimizer's state say of ``fused`` what the script does, so that its checkpoints are
    those of the script alone; and go on fused from any of them. Returns the hooks."""

    def with_fused(state: dict[str, Any], value: Any) -> dict[str, Any]:
        groups = [
            group if any(group.get(name) for name in IMPLEMENTATIONS if name != "fused")
            else {**group, "fused": value}
            for group in state["param_groups"]
        ]  # fmt: skip
        return {**state, "param_groups": groups}

    return [
        optimizer.register_state_dict_post_hook(lambda _, state: with_fused(state, own)),
        optimizer.register_load_state_dict_pre_hook(lambda _, state: with_fused(state, True)),
    ]


def _why_as_given(kind: Any, given: dict[str, Any]) -> str | None:
    """Returns why an optimizer has to be made as the script does it; None if it may be fused."""
    if any(given.get(name) not in (None, False) for name in IMPLEMENTATIONS):
        return "has an implementation that the script chose"
    for tensor in _tensors(given["params"]):
        place = tensor.device.type
        if not (tensor.is_floating_point() and _has_fused(kind, place)):
            return f"has no fused update for {tensor.dtype} on {place}"
    return None


@functools.cache
def _has_fused(kind: Any, device: str) -> bool:
    """Tries it with a step, which nobody is to count."""
    try:
        with step_hooks_suspended():
            return Device(device).has_fused(kind)
    except UsageError:  # "meta"
        return False


def _tensors(params: Any) -> Iterator[torch.Tensor]:
    """Yields the parameters among what an optimizer takes: them, with names, or groups of them."""
    if isinstance(params, torch.Tensor):
        yield params
    elif isinstance(params, dict):
        inside = params.get("params", ())
        if isinstance(inside, Iterator):
            inside = params["params"] = list(inside)
        yield from _tensors(inside)
    elif isinstance(params, Iterable) and not isinstance(params, str):
        for item in params:
            yield from _tensors(item)
