"""Describes callables and values by texts that are the same in every process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from volano.task.own_code import plain_text


def describe_callable(function: Any) -> str | None:
    """Returns a text for a callable that is the same in every process: no addresses in it."""
    if function is None:
        return None
    if isinstance(function, functools.partial):
        arguments = [describe_value(value) for value in function.args]
        arguments += [
            f"{name}={describe_value(value)}" for name, value in function.keywords.items()
        ]
        return f"{describe_callable(function.func)}({', '.join(arguments)})"
    if dataclasses.is_dataclass(function) and not isinstance(function, type):
        return describe_value(function)
    name = getattr(function, "__qualname__", None)
    if name is None:
        function, name = type(function), type(function).__qualname__
    return f"{getattr(function, '__module__', '?')}.{name}"


def describe_value(value: Any, within: tuple[int, ...] = ()) -> str:
    """Returns a text for a value that is the same in every process; ``within``: addresses of the
    values in which it lies, to which it may lead back."""
    if id(value) in within:
        return "..."
    inner = functools.partial(describe_value, within=(*within, id(value)))
    if isinstance(value, Tensor):
        return f"tensor{list(value.shape)}:{digest_tensor(value)[:12]}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {inner(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(inner, value)) + "]"
    if callable(value) and not dataclasses.is_dataclass(value):
        return describe_callable(value) or "None"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.repr]
        inside = ", ".join(f"{name}={inner(getattr(value, name))}" for name in fields)
        return f"{type(value).__qualname__}({inside})"
    text = plain_text(value)
    if " at 0x" in text:  # object's own repr: another in every process
        inside = getattr(value, "__dict__", {})
        return f"{type(value).__module__}.{type(value).__qualname__}({inner(dict(inside))})"
    return text


def digest_tensor(tensor: Tensor) -> str:
    """Returns a digest of a tensor's type, shape and content."""
    content = (
        tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        if tensor.numel()
        else tensor
    )
    head = f"{tensor.dtype}{list(tensor.shape)}".encode()
    return hashlib.sha256(head + content.numpy().tobytes()).hexdigest()[:32]
