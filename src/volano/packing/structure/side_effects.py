"""Detects what a callable or a model holds in addition to its parameters: copies of it, and whether
a call has changed it."""

from __future__ import annotations

import collections
import copy
import itertools
import pickle
import random
import types
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from volano.device.torch_private import version_of
from volano.packing.structure.callable_tree import (
    Parts,
    Path,
    filled,
    is_plain,
    parts_of,
    shell_of,
    text_of,
)

_MOST_LEAVES = 50_000  # what is larger is data and no setting
_MOST_BYTES = 2**26  # a tensor or an array that is larger is data too
# What changes in place and is not opened up; written out, it shows whether it has.
_IS_MADE_AT_RUN_TIME = 1 << 9  # of a class's flags, in Python's own Py_TPFLAGS_HEAPTYPE
_WRITTEN = (
    set,
    bytearray,
    collections.deque,
    random.Random,
    np.random.Generator,
    np.random.RandomState,
)


class Leaf(NamedTuple):
    """A value that is not opened up: its place, and what shows whether it has changed in place."""

    path: Path
    value: Any
    mark: Any


def private_copy(value: Any) -> Any:
    """Copies a callable, the contents of its functions' cells and the objects that it holds, so
    that calls change nothing of the caller's. Parameters and large tensors are shared; what cannot
    be copied stays the caller's own."""
    memo: dict[int, Any] = {}
    functions: list[tuple[types.FunctionType, Parts]] = []
    for _, item, parts in _walked(value, ()):
        if isinstance(item, Tensor | np.ndarray):
            memo[id(item)] = _copied(item)
        elif (
            isinstance(item, types.FunctionType)
            and parts is not None
            and _holds_objects(item, parts)
        ):
            memo[id(item)] = shell_of(item)
            functions.append((memo[id(item)], parts))
    try:
        for shell, parts in functions:
            filled(shell, {step: copy.deepcopy(item, memo) for step, item in parts})
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001 - whatever an object raises that is not made to be copied
        return value


def _copied(value: Tensor | np.ndarray) -> Any:
    if isinstance(value, nn.Parameter) or value.nbytes > _MOST_BYTES:
        return value
    if isinstance(value, Tensor):
        return value if value.requires_grad else value.clone()
    return value.copy()


def _holds_objects(function: types.FunctionType, parts: Parts) -> bool:
    # Torch's functions are known by their identity; functions without objects have nothing that a
    # call could change.
    is_torchs = (function.__module__ or "").partition(".")[0] == "torch"
    return not is_torchs and any(not _is_constant(item) for _, item in parts)


def _is_constant(value: Any) -> bool:
    return is_plain(value) or isinstance(value, float | type)


def leaves_of(value: Any, path: Path = ()) -> list[Leaf]:
    """Returns the values that ``value`` (at ``path``) leads to and that are not opened up, each
    object once."""
    found = ((path, item) for path, item, parts in _walked(value, path) if parts is None)
    return [Leaf(path, item, _mark(item)) for path, item in itertools.islice(found, _MOST_LEAVES)]


def changed_leaf(before: list[Leaf], after: list[Leaf]) -> str | None:
    """Returns the place of the first of :func:`leaves_of` that is another object now, or has
    changed in place; or None."""
    for mine, its in itertools.zip_longest(before, after, fillvalue=Leaf((), None, None)):
        is_known = _is_constant(mine.value) and type(mine.value) is type(its.value)
        is_same = mine.value is its.value or (is_known and mine.value == its.value)
        if mine.path != its.path or not is_same or mine.mark != its.mark:
            return text_of(mine.path or its.path) or "itself"
    return None


def unseen_leaf(leaves: list[Leaf]) -> str | None:
    """Returns the place and the class of the first leaf that may keep something unseen, or None.

    Such a leaf is an object of a Python class that is not opened up. Objects of C are taken not to
    change."""
    for path, value, mark in leaves:
        kind = type(value)
        is_closed = isinstance(
            value, types.FunctionType | types.MappingProxyType | dict | staticmethod | classmethod
        )
        has_room = kind.__flags__ & _IS_MADE_AT_RUN_TIME and (
            kind.__dictoffset__ or _has_slots(kind)
        )
        if (
            mark is None
            and not _is_constant(value)
            and not isinstance(value, Tensor)
            and (is_closed or has_room)
        ):
            return f"{text_of(path) or 'itself'}, a {kind.__qualname__},"
    return None


def _has_slots(kind: type) -> bool:
    return any(
        isinstance(item, types.MemberDescriptorType)
        for base in kind.__mro__
        for item in vars(base).values()
    )


def host_generators() -> bytes:
    """Returns the states of Python's and NumPy's own generators."""
    return pickle.dumps((random.getstate(), np.random.get_state()))


def _walked(value: Any, path: Path) -> Iterator[tuple[Path, Any, Parts | None]]:
    """Returns every object that a value leads to, once, with its place and what it leads to; None
    if it is not opened up."""
    seen: dict[int, Any] = {}
    waiting: list[tuple[Path, Any]] = [(path, value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, weakref.ref):  # its object belongs to another owner
            continue
        parts = None if isinstance(item, type | Tensor) or _is_constant(item) else parts_of(item)
        if parts is not None:
            if id(item) in seen:
                continue
            seen[id(item)] = item
            waiting += [((*path, step), inside) for step, inside in parts]
        yield path, item, parts


def _mark(value: Any) -> Any:
    if isinstance(value, Tensor):
        return None if value.is_inference() else version_of(value)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    is_numbers = (
        isinstance(value, np.ndarray) and not value.dtype.hasobject and value.nbytes <= _MOST_BYTES
    )
    if not is_numbers and not isinstance(value, _WRITTEN):
        return None
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001 - a set of what cannot be written
        return None
