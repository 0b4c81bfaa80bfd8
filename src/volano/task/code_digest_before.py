"""Digests code by the rule of descriptions that state form 2: without the values that code reads.
For runs that were begun so."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from volano.task.callables import describe_callable
from volano.task.own_code import (
    code_bytes,
    digest_text,
    is_installed,
    is_own_module,
    names_in,
    plain_text,
)

FORM = "2"


def code_digest_without_values(function: Any) -> str:
    """Returns a digest of a callable's code, of the plain values of its arguments that are not
    given, and of the functions that it names."""
    return digest_text(_code_text(function, set()))


def module_code_without_values(model: nn.Module) -> str:
    """Returns a digest of the forward passes of a model's classes that are a person's own."""
    classes = {type(module) for module in model.modules()}
    own = sorted(
        (kind for kind in classes if not is_installed(getattr(kind.forward, "__code__", None))),
        key=lambda kind: kind.__qualname__,
    )
    return digest_text("".join(_code_text(kind.forward, set(), kind) for kind in own))


def _code_text(function: Any, seen: set[CodeType], owner: type | None = None) -> str:
    described = describe_callable(function) if owner is None else owner.__qualname__
    if isinstance(function, functools.partial):
        return f"{described} {_code_text(function.func, seen)}"
    if owner is None and getattr(function, "__self__", None) is not None:
        owner = type(function.__self__)
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):  # an object that can be called, or a built-in one
        owner = type(function)
        function = vars(owner).get("__call__", getattr(owner, "forward", None))
    code = getattr(function, "__code__", None)
    if code is None or code in seen or is_installed(code):
        return f"{described}"
    seen.add(code)
    called = [_code_text(f, seen, kind) for f, kind in _called(function, owner)]
    return f"{described} {code_bytes(code)}{_defaults(function)} {called}"


def _defaults(function: Any) -> str:
    """Returns the plain values that arguments have if they are not given; no text without any."""
    named = function.__kwdefaults__ or {}
    found = [*(function.__defaults__ or ()), *(named[name] for name in sorted(named))]
    plain = [plain_text(value) for value in found if isinstance(value, bool | int | float | str)]
    return f" {plain}" if plain else ""


def _called(function: Any, owner: type | None) -> Iterator[tuple[Any, type | None]]:
    """Yields the functions that a function names: its module's, those of other modules of the
    person's, its class's, and those in its closure."""
    names = sorted(names_in(function.__code__))
    for name in names:
        method = None if owner is None else getattr(owner, name, None)
        value = function.__globals__.get(name)
        if isinstance(method, FunctionType):
            yield method, owner
        elif isinstance(value, FunctionType):
            yield value, None
        elif isinstance(value, ModuleType) and is_own_module(value):
            inner = (getattr(value, other, None) for other in names)
            yield from ((one, None) for one in inner if isinstance(one, FunctionType))
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        if isinstance(value, FunctionType | functools.partial):
            yield value, None
