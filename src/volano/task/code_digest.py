"""Digests code, to detect whether the code that a task calls has changed.

The code is the body of a function and of those that it calls by their names, as far as a person
wrote them: what is installed, and Volano itself, have versions.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from volano.task.callables import describe_callable
from volano.task.task import Task

CODE = ("objective", "forward", "collate", "augment")
_INSTALLED = tuple(
    {
        str(Path(path).resolve())
        for path in (
            *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")),
            Path(__file__).parents[1],
            Path(nn.__file__).parents[1],
        )
    }
)


def code_of(task: Task, model: nn.Module) -> dict[str, str | None]:
    """Returns the digests of the code that a task runs at each step, and the Python in whose
    bytes it is written and the form of the digests."""
    functions = {name: getattr(task, name) for name in CODE if name != "forward"}
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "form": "2",  # with default values, and functions of a person's other modules
        "forward": module_code(model),
        **{name: None if f is None else code_digest(f) for name, f in functions.items()},
    }


def code_digest(function: Any) -> str:
    """Returns a digest of a callable's code and of the values it was made with, the same in every
    process."""
    return _digest(_code_text(function, set()))


def module_code(model: nn.Module) -> str:
    """Returns a digest of the forward passes of a model's classes that are a person's own."""
    classes = {type(module) for module in model.modules()}
    own = sorted(
        (kind for kind in classes if not _is_installed(getattr(kind.forward, "__code__", None))),
        key=lambda kind: kind.__qualname__,
    )
    return _digest("".join(_code_text(kind.forward, set(), kind) for kind in own))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    if code is None or code in seen or _is_installed(code):
        return f"{described}"
    seen.add(code)
    called = [_code_text(f, seen, kind) for f, kind in _called(function, owner)]
    return f"{described} {_code_bytes(code)}{_defaults(function)} {called}"


def _defaults(function: Any) -> str:
    """Returns the plain values that arguments have if they are not given; no text without any."""
    named = function.__kwdefaults__ or {}
    found = [*(function.__defaults__ or ()), *(named[name] for name in sorted(named))]
    plain = [repr(value) for value in found if isinstance(value, bool | int | float | str)]
    return f" {plain}" if plain else ""


def _called(function: Any, owner: type | None) -> Iterator[tuple[Any, type | None]]:
    """Yields the functions that a function names: its module's, those of other modules of the
    person's, its class's, and those in its closure."""
    names = sorted(_names(function.__code__))
    for name in names:
        method = None if owner is None else getattr(owner, name, None)
        value = function.__globals__.get(name)
        if isinstance(method, FunctionType):
            yield method, owner
        elif isinstance(value, FunctionType):
            yield value, None
        elif isinstance(value, ModuleType) and _is_own(value):
            inner = (getattr(value, other, None) for other in names)
            yield from ((one, None) for one in inner if isinstance(one, FunctionType))
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        if isinstance(value, FunctionType | functools.partial):
            yield value, None


def _names(code: CodeType) -> set[str]:
    inner = [item for item in code.co_consts if isinstance(item, CodeType)]
    return set(code.co_names).union(*(_names(item) for item in inner))


def _code_bytes(code: CodeType) -> str:
    # Constants hold the code of inner functions, whose repr has addresses, and sets have an order
    # of their own in each process.
    constants = [
        _code_bytes(item)
        if isinstance(item, CodeType)
        else repr(sorted(map(repr, item)))
        if isinstance(item, frozenset)
        else repr(item)
        for item in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _is_own(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and not file.startswith(_INSTALLED)


def _is_installed(code: CodeType | None) -> bool:
    return code is None or code.co_filename.startswith(_INSTALLED)
