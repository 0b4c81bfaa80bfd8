"""The tree of values that callables, models and data carry with them: how two of them differ, and
copies with other numbers.

A value is seen as a tree: a function leads to what its cells and defaults hold, a partial to its
arguments, a bound method to its object, an object to its attributes, a container to its items.
Globals and classes are not part of it: they are compared by identity. Other values (slots, objects
of C, classes made twice, a value that leads back to itself) are not opened up: two of them cannot
be compared, and their tasks are trained one by one. No method of the user's runs."""

from __future__ import annotations

import collections
import enum
import functools
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volano.record.format import short

TreeStep = tuple[str, Any]  # the kind of place within its parent, and its name there
Path = tuple[TreeStep, ...]
Parts = list[tuple[TreeStep, Any]]  # the values to which a value leads, by their places

_PLAIN = frozenset(
    {bool, int, complex, str, bytes, range, slice, type(None), type(...), torch.dtype,
     torch.device, torch.Size}
)  # fmt: skip
_DICTS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_TENSORS_AND_MODULES = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
# Attributes in which recurrent modules keep their parameters a second time, and weak references to
# them.
_OF_RECURRENT = ("_flat_weights", "_flat_weight_refs")
# Larger containers are data, not settings; a walk over them would take seconds.
_MOST_PARTS = 200_000
_LONGEST_WORD = 40


class _Plain:
    """A class that is written in Python, with ``object`` as its base."""


def is_plain(value: Any) -> bool:
    """Returns whether a value is known by ``==``, never changes and leads to nothing."""
    if type(value) in (tuple, frozenset):
        return all(type(item) in _PLAIN for item in value)
    return type(value) in _PLAIN or isinstance(value, np.dtype | enum.Enum | pathlib.PurePath)


def _is_key(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_key, value))
    return is_plain(value) or isinstance(value, float | type)


def _is_listed(value: Any) -> bool:
    return type(value) in (list, set) and all(type(item) in _PLAIN for item in value)


def parts_of(value: Any) -> Parts | None:
    """Returns what a value leads to, or None if it is not opened up: it is then known by identity
    alone."""
    kind = type(value)
    if kind is types.FunctionType:
        return _of_function(value)
    if kind is functools.partial:
        arguments: Parts = [(("argument", index), item) for index, item in enumerate(value.args)]
        keywords: Parts = [(("keyword", name), item) for name, item in value.keywords.items()]
        return [(("function", "func"), value.func), *arguments, *keywords, *_attributes(value)]
    if kind is types.MethodType:
        return [
            (("function", value.__func__.__name__), value.__func__),
            (("self", ""), value.__self__),
        ]
    if kind in _DICTS:
        if not all(map(_is_key, value)):
            return None
        made = getattr(value, "default_factory", None)
        factory: Parts = [] if made is None else [(("factory", "default_factory"), made)]
        return factory + [(("item", key), item) for key, item in value.items()]
    if kind in (list, tuple):
        return [(("item", index), item) for index, item in enumerate(value)]
    if isinstance(value, tuple) and hasattr(kind, "_fields") and not kind.__dictoffset__:
        return [(("field", name), item) for name, item in zip(kind._fields, value, strict=True)]
    if _layout(kind) != _layout(_Plain):  # slots, or memory of C
        return None
    return _of_module(value) if isinstance(value, nn.Module) else _attributes(value)


def _layout(kind: type) -> tuple[int, ...]:
    return kind.__basicsize__, kind.__itemsize__, kind.__dictoffset__, kind.__weakrefoffset__


def _attributes(value: Any) -> Parts:
    return [
        (("attribute", name), item)
        for name, item in object.__getattribute__(value, "__dict__").items()
    ]


def _of_function(value: types.FunctionType) -> Parts | None:
    code, defaults = value.__code__, value.__defaults__ or ()
    try:
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
    except ValueError:  # an empty cell: the function is not complete yet
        return None
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    return [
        *((("cell", name), item) for name, item in zip(code.co_freevars, cells, strict=True)),
        *((("default", name), item) for name, item in zip(names, defaults, strict=True)),
        *((("keyword_default", name), item) for name, item in (value.__kwdefaults__ or {}).items()),
        *_attributes(value),
    ]


def _of_module(value: nn.Module) -> Parts | None:
    if isinstance(value, torch.jit.ScriptModule):  # its parts are torch's own objects, in C++
        return None
    inside: Parts = []
    for name, item in value.__dict__.items():
        if name.endswith(_HOOKS) and isinstance(item, dict):
            # Their keys count all hooks of a process.
            inside.append((("hooks", name), list(item.values())))
        elif name not in _TENSORS_AND_MODULES and not (
            isinstance(value, nn.RNNBase) and name in _OF_RECURRENT
        ):
            inside.append((("attribute", name), item))
    for place in _TENSORS_AND_MODULES:
        inside += [((place, name), item) for name, item in value.__dict__[place].items()]
    return inside


def text_of(path: Path) -> str:
    """Writes a path as a person does: ``objective.config.weights[0]``."""
    text = ""
    for kind, name in path:
        if kind in ("item", "argument"):
            text += f"[{name!r}]"
        elif name != "":
            text += f".{name}" if text else str(name)
    return text


def with_numbers(value: Any, numbers: Mapping[Path, Any], path: Path = ()) -> Any:
    """Returns ``value``, which lies at ``path``, with ``numbers`` at their places.

    Parts that hold none of them are shared with ``value``; ``value`` itself is not changed.
    """
    if path in numbers:
        return numbers[path]
    if not any(place[: len(path)] == path for place in numbers):
        return value
    parts = parts_of(value)
    assert parts is not None
    inside = {step: with_numbers(item, numbers, (*path, step)) for step, item in parts}
    if isinstance(value, types.FunctionType):
        return filled(shell_of(value), inside)
    if isinstance(value, functools.partial):
        new = functools.partial(inside[("function", "func")], *_named("argument", inside).values())
        new.__setstate__(  # pyright: ignore[reportAttributeAccessIssue]
            (new.func, new.args, _named("keyword", inside), _named("attribute", inside))
        )
        return new
    if isinstance(value, types.MethodType):
        return types.MethodType(*inside.values())
    if isinstance(value, list | tuple):
        items = inside.values()
        return [*items] if isinstance(value, list) else tuple.__new__(type(value), items)
    if isinstance(value, dict):
        new = value.copy()
        new.update(_named("item", inside))
        return new
    new = object.__new__(type(value))
    new.__dict__.update(value.__dict__)
    new.__dict__.update(_named("attribute", inside))
    if isinstance(value, nn.Module):
        new.__dict__.update({place: _named(place, inside) for place in _TENSORS_AND_MODULES})
    return new


def _named(kind: str, inside: Mapping[TreeStep, Any]) -> dict[Any, Any]:
    return {name: item for (own, name), item in inside.items() if own == kind}


def shell_of(value: types.FunctionType) -> types.FunctionType:
    """Returns a new function of the same code, whose cells are empty."""
    cells = tuple(types.CellType() for _ in value.__code__.co_freevars)
    new = types.FunctionType(value.__code__, value.__globals__, value.__name__, None, cells)
    for name in ("__qualname__", "__module__", "__doc__", "__annotations__"):
        setattr(new, name, getattr(value, name))
    return new


def filled(shell: types.FunctionType, inside: Mapping[TreeStep, Any]) -> types.FunctionType:
    """Fills a function of :func:`shell_of` with its parts, and returns it."""
    for cell, item in zip(shell.__closure__ or (), _named("cell", inside).values(), strict=True):
        cell.cell_contents = item
    shell.__defaults__ = tuple(_named("default", inside).values()) or None
    shell.__kwdefaults__ = _named("keyword_default", inside) or None
    shell.__dict__.update(_named("attribute", inside))
    return shell


class Comparison:
    """The findings of a comparison of two values that are walked together.

    Args:
        limit: number of differences after which the search stops.

    Attributes:
        differences: place -> how the first and the second differ there, in words.
        numbers: floating-point numbers that differ: the value in the first and in the second.
        opaque: whether a difference is between objects that cannot be compared.
    """

    def __init__(self, *, limit: int = 1) -> None:
        self.differences: dict[str, tuple[str, str]] = {}
        self.numbers: dict[Path, tuple[float, float]] = {}
        self.opaque = False
        self._limit = limit
        self._num_parts = 0
        self._open: set[int] = set()
        self._partners: dict[int, int] = {}
        self._names: tuple[dict[int, str], dict[int, str]] = ({}, {})

    @property
    def is_over(self) -> bool:
        """The answer whether enough is known."""
        return len(self.differences) >= self._limit

    def differ(self, place: Path | str, one: str, other: str) -> None:
        """Notes a difference."""
        text = place if isinstance(place, str) else text_of(place)
        if not self.is_over:
            self.differences.setdefault(text, (one, other if other != one else f"another {other}"))

    def models(self, root: str, one: nn.Module, other: nn.Module) -> None:
        """Compares two models: modules by name and class, their attributes, and their tensors by
        name, shape, kind and tying. The values of parameters and buffers may differ: each member of
        a pack has its own."""
        mine, others = (dict(model.named_modules(remove_duplicate=False)) for model in (one, other))
        self._names = (_names_of(one), _names_of(other))
        if list(mine) != list(others):
            words = [
                _short(", ".join(list(a.keys() - b.keys()) or a))
                for a, b in ((mine, others), (others, mine))
            ]
            return self.differ(f"{root}'s modules", *words)
        for name, module in mine.items():
            self._partners.setdefault(id(module), id(others[name]))
        seen: set[int] = set()
        for name, module in mine.items():
            path: Path = ((root, root), ("module", name))
            if self._partners[id(module)] != id(others[name]):
                self.differ(path, "one module in several places", "several modules")
            elif id(module) not in seen:
                seen.add(id(module))
                self._modules(path, module, others[name])
        self._names = ({}, {})

    def _modules(self, path: Path, one: nn.Module, other: nn.Module) -> None:
        parts = self._parts(path, one, other)
        before = len(self.differences)
        for is_tensor in (False, True):
            if len(self.differences) == before:  # otherwise a shape repeats what an attribute says
                for (kind, name), mine, others in parts:
                    if kind != "_modules" and (kind in ("_parameters", "_buffers")) == is_tensor:
                        self.values((*path, (kind, name)), mine, others, exact=kind == "hooks")

    def values(self, path: Path, one: Any, other: Any, *, exact: bool = False) -> None:
        """Compares two values that lie at ``path``; ``exact`` allows no number to differ either."""
        self._num_parts += 1
        if one is other or self.is_over:
            return
        if self._num_parts > _MOST_PARTS:
            self._refuse(path, "too many parts to compare", "as many")
        elif _may_vary(path, one) and _may_vary(path, other):
            self._floats(path, float(one), float(other), exact=exact)
        elif isinstance(one, type) and isinstance(other, type):
            self.differ(path, word(one), word(other))
        elif is_plain(one) or is_plain(other) or (_is_listed(one) and _is_listed(other)):
            if type(one) is not type(other) or one != other:
                self.differ(path, word(one, beside=other), word(other, beside=one))
        elif isinstance(one, Tensor) and isinstance(other, Tensor):
            self._tensors(path, one, other)
        elif isinstance(one, np.ndarray | np.generic) and isinstance(
            other, np.ndarray | np.generic
        ):
            if type(one) is not type(other) or not _same_arrays(np.asarray(one), np.asarray(other)):
                self.differ(path, word(one), word(other))
        elif id(one) in self._partners:
            if self._partners[id(one)] != id(other):
                self.differ(path, "a module of the model", "another one")
        elif id(one) in self._open:
            self._refuse(path, f"{word(one)} that leads back to itself", "another one")
        else:
            self._open.add(id(one))
            for step, mine, others in self._parts(path, one, other):
                is_exact = exact or step[0] in ("hooks", "factory")
                self.values((*path, step), mine, others, exact=is_exact)
            self._open.discard(id(one))

    def _parts(self, path: Path, one: Any, other: Any) -> list[tuple[TreeStep, Any, Any]]:
        """Returns what two values of one class lead to; nothing after a difference of their own."""
        if _class_of(one) is not _class_of(other):
            name, its = type(one).__qualname__, type(other).__qualname__
            words = (name, its) if name != its else (f"a {name}", "one of another class")
            self.differ(path, *words)
            return []
        if isinstance(one, types.FunctionType):
            if one.__code__ != other.__code__:
                self.differ(path, f"the code of {_code_word(one)}", f"that of {_code_word(other)}")
                return []
            if one.__globals__ is not other.__globals__:
                self.differ(path, "a function of one module", "of another")
                return []
        mine, others = parts_of(one), parts_of(other)
        if mine is None or others is None:
            kind = type(one).__qualname__
            self._refuse(path, f"{kind}, which cannot be compared", f"another {kind}")
            return []
        steps = [[step for step, _ in inside] for inside in (mine, others)]
        if steps[0] != steps[1]:
            named = (", ".join(str(name) for _, name in own) for own in steps)
            self.differ(path, *(_short(text or "nothing") for text in named))
            return []
        return [(step, value, its) for (step, value), (_, its) in zip(mine, others, strict=True)]

    def _refuse(self, path: Path, one: str, other: str) -> None:
        self.opaque = True
        self.differ(path, one, other)

    def _floats(self, path: Path, one: float, other: float, *, exact: bool) -> None:
        if one.hex() == other.hex():
            return
        if exact:
            self.differ(path, repr(one), repr(other))
        else:
            self.numbers[path] = (one, other)

    def _tensors(self, path: Path, one: Tensor, other: Tensor) -> None:
        mine, others = self._names[0].get(id(one)), self._names[1].get(id(other))
        if mine is not None or others is not None:
            heads = (_tensor_head(mine, one), _tensor_head(others, other))
            if heads[0] != heads[1]:
                self.differ(path, *_where_unlike(*heads))
        elif one.requires_grad or other.requires_grad:
            # It may be trained from outside; then the first member's value differs from what the
            # others would see.
            self._refuse(path, "a tensor with a gradient", "another one")
        elif not _same_tensors(one.detach(), other.detach()):
            its = word(other)
            self.differ(path, word(one), "other values" if word(one) == its else its)


def word(value: Any, *, beside: Any = None) -> str:
    """Returns a value in a few words, without addresses; with its type if it looks like the other
    one, ``beside``."""
    if isinstance(value, Tensor):
        return f"tensor {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.generic):
        return _short(str(value))
    if isinstance(value, np.ndarray):
        return f"array {list(value.shape)} {value.dtype}"
    if isinstance(value, float) or is_plain(value) or _is_listed(value):
        are_numbers = isinstance(value, int | float) and isinstance(beside, int | float)
        is_mixed = are_numbers and type(value) is not type(beside)
        return _short(repr(value)) + (f" ({type(value).__name__})" if is_mixed else "")
    return getattr(value, "__qualname__", type(value).__qualname__)


def _class_of(value: Any) -> type:
    kind = type(value)
    # A parametrized module's class is made for it alone; it adds only parametrizations, which are
    # modules.
    if kind.__module__ == "torch.nn.utils.parametrize" and kind.__name__.startswith("Parametrized"):
        return kind.__bases__[0]
    return kind


def _may_vary(path: Path, value: Any) -> bool:
    """Returns whether a number may differ between members.

    A whole number in a model's module is its structure. A whole number in an objective is mostly a
    setting that it does not read; if it shapes a tensor, no program is made."""
    return type(value) in (float, np.float64) or (
        type(value) is int and path[0][1] != "model" and abs(value) < 2**53
    )  # fmt: skip


def _same_tensors(one: Tensor, other: Tensor) -> bool:
    kinds = [(each.dtype, each.shape, each.device, type(each)) for each in (one, other)]
    if (
        kinds[0] != kinds[1]
        or one.is_meta
        or one.layout != other.layout
        or one.layout != torch.strided
    ):
        return False
    return torch.equal(one, other) or bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )


def _same_arrays(one: np.ndarray, other: np.ndarray) -> bool:
    """Returns whether two arrays hold the same bits; arrays of objects never do."""
    if one.dtype != other.dtype or one.shape != other.shape or one.dtype.hasobject:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))


def _short(text: str) -> str:
    return short(text, _LONGEST_WORD)


def _code_word(function: types.FunctionType) -> str:
    return f"{function.__code__.co_name} (line {function.__code__.co_firstlineno})"


def _tensor_head(name: str | None, tensor: Tensor) -> tuple[Any, ...]:
    shape, kind = list(tensor.shape), type(tensor).__name__
    return name, str(tensor.dtype), shape, tensor.requires_grad, kind


def _where_unlike(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[str, str]:
    labels = ("tied to {}", "{}", "shape {}", "requires_grad={}", "{}")
    pairs = [(label, a, b) for label, a, b in zip(labels, one, other, strict=True) if a != b]
    return tuple(", ".join(label.format(pair[side]) for label, *pair in pairs) for side in (0, 1))  # pyright: ignore[reportReturnType]


def _names_of(model: nn.Module) -> dict[int, str]:
    parameters = model.named_parameters(remove_duplicate=False)
    named = [*parameters, *model.named_buffers(remove_duplicate=False)]
    return {id(tensor): name for name, tensor in reversed(named)}  # the first name of each stays
