"""Digests code, to detect whether the code that a task calls has changed."""

from __future__ import annotations

import functools
import hashlib
from types import CodeType
from typing import Any

from torch import nn

from volano.task import describe_callable


def code_digest(function: Any) -> str:
    """Returns a digest of a callable's code and of the values it was made with, the same in every
    process."""
    return hashlib.sha256(_code_text(function).encode()).hexdigest()[:16]


def module_code(model: nn.Module) -> str:
    """Returns a digest of the forward passes of a model's classes that are not torch's own."""
    classes = {type(module) for module in model.modules()}
    own = sorted(
        (kind for kind in classes if not kind.__module__.startswith("torch.")),
        key=lambda kind: kind.__qualname__,
    )
    return hashlib.sha256("".join(_code_text(kind.forward) for kind in own).encode()).hexdigest()[
        :16
    ]


def _code_text(function: Any) -> str:
    if isinstance(function, functools.partial):
        return f"{describe_callable(function)} {_code_text(function.func)}"
    code = getattr(function, "__code__", None)
    if code is None:  # an object that can be called, or a built-in function
        code = getattr(type(function).__call__, "__code__", None)
    return f"{describe_callable(function)} {'' if code is None else _code_of(code)}"


def _code_of(code: CodeType) -> str:
    # Constants hold the code of inner functions, whose repr has addresses.
    constants = [
        _code_of(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
