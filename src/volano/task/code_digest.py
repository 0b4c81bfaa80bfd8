"""Digests code, to detect whether the code that a task calls has changed.

The code is the body of a function, the values that it reads by name (constants of its module and of
others, variables of outer functions, attributes of objects), and the functions and classes that it
names, and so on: as far as a person wrote them, for what is installed, and Volano itself, have
versions. What any of this code sets or fills is no part of it, since planning and training change
it, nor is what it imports when it is called.
"""

from __future__ import annotations

import enum
import functools
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volano.task.callables import digest_tensor
from volano.task.code_digest_before import FORM as FORM_BEFORE
from volano.task.code_digest_before import code_digest_without_values, module_code_without_values
from volano.task.own_code import (
    NamesUsed,
    code_bytes,
    digest_text,
    is_installed,
    is_own_class,
    is_own_module,
    plain_text,
)
from volano.task.task import Task

_BEFORE = ("objective", "forward", "collate", "augment")
CODE = (*_BEFORE, "model", "optimizer", "parameter_groups", "schedule")
FORM = "3"  # with the values that code reads
# No more is read of a program: what lies deeper counts by its type, and what is longer by its size.
_MOST_PIECES, _MOST_VALUES, _MOST_BYTES, _MOST_DEPTH = 1000, 10_000, 2**22, 6
_PLAIN = (
    bool, int, float, complex, str, bytes, type(None), type(...), range, torch.dtype, re.Pattern,
)  # fmt: skip
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, type(functools.cache(len)))
_MUTABLE = (list, dict, set, deque, bytearray, Tensor, np.ndarray)
# Code that calls one of these, or a method in place (`add_`), fills what it reads: no constant.
_FILLING = frozenset(
    ("append", "appendleft", "extend", "insert", "add", "update", "setdefault", "pop", "popleft",
     "popitem", "remove", "discard", "clear", "sort", "reverse", "fill", "shuffle", "heappush",
     "heappop")
)  # fmt: skip
_MAKING = ("__init__", "__new__", "__post_init__", "__setstate__")
_LOSSES = "torch.nn.modules.loss"


def code_of(task: Task, model: nn.Module, form: str | None = None) -> dict[str, str | None]:
    """Returns the digests of the code that a task runs, the Python in whose bytes it is written,
    and the form of the digests; ``form``: that of a description to compare them with."""
    form, names, digest, forward = (
        (FORM_BEFORE, _BEFORE, code_digest_without_values, module_code_without_values)
        if form == FORM_BEFORE
        else (FORM, CODE, code_digest, module_code)
    )
    functions = {name: getattr(task, name) for name in names if name != "forward"}
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "form": form,
        "forward": forward(model),
        **{name: None if f is None else digest(f) for name, f in functions.items()},
    }


def code_digest(function: Any) -> str:
    """Returns a digest of a callable's code and of the values that it reads and was made with, the
    same in every process."""
    return digest_text(_read(lambda reading: reading.text(function, NamesUsed())))


def module_code(model: nn.Module) -> str:
    """Returns a digest of the forward passes of a model's classes that are a person's own."""
    found = set()
    for kind in {type(module) for module in model.modules()}:
        found.add(_read(functools.partial(_Reading.forward, kind=kind)))
    return digest_text("\n".join(sorted(found - {""})))


def _read(begin: Callable[[_Reading], str]) -> str:
    """Returns the text of all that is reached from a beginning; read twice, since what the code
    sets is known only when all of it has been seen."""
    reading, text = _Reading(NamesUsed()), ""
    for _ in range(2):
        reading = _Reading(reading.found)
        text = "\n".join(filter(None, [begin(reading), *reading.texts()]))
    return text


class _Reading:
    """The pieces that some code reaches: texts of functions and classes, in the order in which
    they are reached.

    Attributes:
        found: the names that all of this code uses.
    """

    def __init__(self, known: NamesUsed) -> None:
        self._all, self.found = known, NamesUsed()
        self._known: set[tuple[int, type | None]] = set()
        # Also keeps them alive, so that no other one gets the address of one that was read.
        self._pieces: list[tuple[Any, type | None]] = []
        self._values_left, self._bytes_left = _MOST_VALUES, _MOST_BYTES

    def texts(self) -> Iterator[str]:
        """Yields the texts of what was added, and of what is found while they are read."""
        for piece, owner in self._pieces:  # which grows meanwhile
            yield self._class(piece) if isinstance(piece, type) else self._function(piece, owner)

    def forward(self, kind: type[nn.Module]) -> str:
        """Adds the forward pass of a class; it has no text before its pieces."""
        self.add(kind.forward, kind)
        return ""

    def add(self, piece: Any, owner: type | None = None) -> None:
        """Adds a class, or a function (a method of ``owner``), to be read. What is installed only
        hands on what it was given, as decorators do."""
        piece = piece if isinstance(piece, type) else getattr(piece, "__func__", piece)
        if (id(piece), owner) in self._known or len(self._pieces) >= _MOST_PIECES:
            return
        self._known.add((id(piece), owner))
        is_function = isinstance(piece, FunctionType)
        if isinstance(piece, type):
            is_own, inner = is_own_class(piece), None
        else:
            is_own = is_function and not is_installed(piece.__code__)
            inner = getattr(piece, "__wrapped__", None)
        if is_own:
            self._pieces.append((piece, owner))
        elif inner is not None:
            self.add(inner, owner)
        elif is_function:
            for value in _cells(piece).values():
                if callable(value):
                    self.text(value, NamesUsed())

    def text(self, value: Any, used: NamesUsed, depth: int = 0) -> str:
        """Returns a text for a value that is the same in every process, and adds the functions and
        classes in it.

        Args:
            used: the names in the code that reads it.
            depth: how deep it lies within others.
        """
        self._values_left -= 1
        kind = type(value).__qualname__
        if isinstance(value, _PLAIN):
            return kind if isinstance(value, str) and _is_device(value) else plain_text(value)
        is_filled = isinstance(value, _MUTABLE) and (_fills(used) or _fills(self._all))
        if is_filled or depth > _MOST_DEPTH or self._values_left < 0:
            return kind
        if isinstance(value, Tensor | np.ndarray):
            return self._array(value)
        if isinstance(value, functools.partial):
            value = (value.func, value.args, value.keywords)
        if isinstance(value, set | frozenset):  # in the order of no process
            plain = [plain_text(item) for item in _bounded(value) if isinstance(item, _PLAIN)]
            return f"{kind}{len(value)}{sorted(plain)}"
        if isinstance(value, tuple | list | deque):
            texts = [self.text(item, used, depth + 1) for item in _bounded(value)]
            return f"{kind}{len(value)}{texts}"
        if isinstance(value, type):
            self.add(value)
            return value.__qualname__
        if isinstance(value, _FUNCTIONS):
            return self._named(value, used, depth)
        try:
            inside = self._inside(value, used)
        except Exception:  # noqa: BLE001 - what looking at a stranger's object raises is no business of a run
            return kind
        return f"{kind}{self._items(inside, used, depth)}"

    def _named(self, function: Any, used: NamesUsed, depth: int) -> str:
        owner = getattr(function, "__self__", None)
        is_method = isinstance(function, MethodType) and not isinstance(owner, type)
        self.add(function, type(owner) if is_method else owner if isinstance(owner, type) else None)
        name = getattr(function, "__qualname__", "")
        if not is_method or isinstance(owner, nn.Module):
            return name
        return f"{name} of {self.text(owner, used, depth + 1)}"

    def _inside(self, value: Any, used: NamesUsed) -> Mapping[Any, Any]:
        """Returns what a value holds under names, as far as code asks for it."""
        # Of a configuration, the entries that the code names.
        if isinstance(value, dict | MappingProxyType):
            named = {key: item for key, item in value.items() if key in used.texts}
            return named or value
        if isinstance(value, enum.Enum):
            return {value.name: value.value}
        if isinstance(value, ModuleType):
            known = vars(value) if is_own_module(value) else {}
            wanted = used.all - self._all.attributes_set - self._all.stored
            return {name: known[name] for name in sorted(wanted) if name in known}
        kind, attributes = type(value), _attributes(value)
        if is_own_class(kind):
            self.add(kind)
            wanted = _names_of(kind).all | used.all
        elif isinstance(value, nn.Module):  # what a loss was made with; others keep what they meet
            wanted = set(attributes) if kind.__module__ == _LOSSES else set()
        else:
            wanted = used.all
        wanted = wanted - self._all.attributes_set - used.attributes_set
        return {name: item for name, item in attributes.items() if name in wanted}

    def _items(self, inside: Mapping[Any, Any], used: NamesUsed, depth: int) -> list[str]:
        # By name: the order in which a dict was filled is no part of what it says.
        return sorted(
            f"{self.text(name, used, depth + 1)}={self.text(item, used, depth + 1)}"
            for name, item in _bounded(inside.items())
        )

    def _array(self, value: Tensor | np.ndarray) -> str:
        described = f"{value.dtype}{list(value.shape)}"
        is_plain = (
            type(value) is Tensor  # no parameter, which is trained, nor one without content
            and value.layout == torch.strided
            and not (value.is_meta or value.is_quantized)
            if isinstance(value, Tensor)
            else value.dtype.kind != "O"
        )
        if not is_plain:
            return described
        self._bytes_left -= value.nbytes
        if self._bytes_left < 0:
            return described
        if isinstance(value, Tensor):
            return described + digest_tensor(value)
        return described + digest_text(np.ascontiguousarray(value).tobytes().hex())

    def _class(self, kind: type) -> str:
        used, texts = _names_of(kind), []
        self.found.update(used)
        for base in kind.__mro__:
            for name, value in sorted(vars(base).items()) if is_own_class(base) else ():
                if isinstance(value, property):
                    self.add(value.fget, kind)
                elif isinstance(value, FunctionType | staticmethod | classmethod):
                    self.add(value, kind)
                elif not name.startswith("__") and name not in self._all.attributes_set:
                    texts.append(f"{name}={self.text(value, used)}")
        return f"{kind.__qualname__} {texts}"

    def _function(self, function: FunctionType, owner: type | None) -> str:
        used = _names_in(function.__code__)
        is_making = function.__name__ in _MAKING
        self.found.update(used, with_attributes=not is_making)
        found = {**_globals(function, used), **_cells(function)}
        read = [
            f"{name}={self.text(found[name], used)}"
            for name in sorted(found)
            if name not in used.stored and name not in self._all.stored
        ]
        named = function.__kwdefaults__ or {}
        given = [*(function.__defaults__ or ()), *(named[name] for name in sorted(named))]
        defaults = [self.text(value, used) for value in given]
        for base in () if owner is None else owner.__mro__:
            for name in sorted(used.all & vars(base).keys()) if is_own_class(base) else ():
                value = vars(base)[name]
                if isinstance(value, FunctionType | staticmethod | classmethod | property):
                    self.add(value.fget if isinstance(value, property) else value, owner)
                elif name not in used.attributes_set | self._all.attributes_set:
                    read.append(f"{name}={self.text(value, used)}")
        name = (
            function.__qualname__ if owner is None else f"{owner.__qualname__}.{function.__name__}"
        )
        return f"{name} {code_bytes(function.__code__)} {defaults} {read}"


def _globals(function: FunctionType, used: NamesUsed) -> dict[str, Any]:
    names = [name for name in used.loaded if not name.startswith("__")]
    return {
        name: function.__globals__[name] for name in sorted(names) if name in function.__globals__
    }


def _cells(function: FunctionType) -> dict[str, Any]:
    """Returns the variables of outer functions that a function uses, as far as they are bound."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def _attributes(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object; of a network the settings and parts, and what it keeps
    if it is not trained."""
    slots = [getattr(base, "__slots__", ()) for base in type(value).__mro__]
    names = [name for one in slots for name in ((one,) if isinstance(one, str) else one)]
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    found |= getattr(value, "__dict__", {})
    if not isinstance(value, nn.Module):
        return found
    kept = {} if any(True for _ in value.parameters()) else dict(value.named_buffers(recurse=False))
    found = {name: one for name, one in found.items() if name[:1] != "_" and name != "training"}
    return {**found, **kept, **dict(value.named_children())}


@functools.lru_cache(maxsize=4096)
def _names_in(code: CodeType) -> NamesUsed:
    return NamesUsed().add(code)


@functools.lru_cache(maxsize=1024)
def _names_of(kind: type) -> NamesUsed:
    """Returns the names in a class's own code; those that it sets are those that it sets after it
    was made."""
    used = NamesUsed()
    for base in kind.__mro__:
        for name, value in vars(base).items() if is_own_class(base) else ():
            value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if isinstance(value, FunctionType):
                used.update(_names_in(value.__code__), with_attributes=name not in _MAKING)
    return used


def _fills(used: NamesUsed) -> bool:
    is_in_place = any(name.endswith("_") and name[:1] != "_" for name in used.all)
    return used.has_items_stored or is_in_place or not _FILLING.isdisjoint(used.all)


def _bounded(items: Any) -> list[Any]:
    return list(items) if len(items) <= _MOST_VALUES else []


def _is_device(text: str) -> bool:
    """Returns whether a text names a device: a run may go on on another one."""
    try:
        torch.device(text)
    except RuntimeError:
        return False
    return True
