"""Compares two values part by part: where they differ, in words, and which numbers differ and nothing else."""

from __future__ import annotations

import types
import weakref
from typing import Any

import numpy as np
from torch import Tensor, nn

from volano.packing.structure.callable_tree import (
    PLAIN,
    Parts,
    Path,
    is_transparent,
    parts_of,
    same_arrays,
    same_tensors,
    text_of,
)

# What is larger is data and no setting; a walk over it would take seconds.
_MOST_PARTS = 200_000
_LONGEST_WORD = 40
_NEVER_COPIED = ("hooks", "factory")
_OF_CLASSES = (type, property, staticmethod, classmethod)


class Comparison:
    """What is found between two values that are walked together.

    Args:
        limit: of differences; nothing more is looked for after so many.

    Attributes:
        differences: where the two are unlike: what stands in the first and in the second, in words.
        numbers: floating-point numbers that differ: the value in the second.
        returns: see :class:`~volano.packing.structure.callable_tree.CallableTree`.
        opaque: whether a difference is one of objects that cannot be compared.
    """

    def __init__(self, *, limit: int = 1) -> None:
        self.differences: dict[str, tuple[str, str]] = {}
        self.numbers: dict[Path, float] = {}
        self.returns: dict[Path, Path] = {}
        self.opaque = False
        self._limit = limit
        self._num_parts = 0
        self._is_exact = 0
        self._open: dict[int, tuple[int, Path]] = {}
        self._partners: dict[int, int] = {}
        self._names: tuple[dict[int, str], dict[int, str]] = ({}, {})

    @property
    def is_over(self) -> bool:
        """Whether enough is known."""
        return len(self.differences) >= self._limit

    def differ(self, place: Path | str, one: str, other: str) -> None:
        """Notes a difference."""
        text = place if isinstance(place, str) else text_of(place)
        if not self.is_over:
            self.differences.setdefault(text, (one, other if other != one else f"another {other}"))

    def values(self, path: Path, one: Any, other: Any, *, exact: bool = False) -> None:
        """Compares two values that lie at ``path``; ``exact`` allows no number to differ either."""
        self._is_exact += exact
        self._values(path, one, other)
        self._is_exact -= exact

    def models(self, root: str, one: nn.Module, other: nn.Module) -> None:
        """Compares two models: modules by name and class, their attributes, and their tensors by name, shape, kind and
        tying. The values of parameters and buffers may differ: each member of a pack has its own."""
        modules = (dict(one.named_modules(remove_duplicate=False)), dict(other.named_modules(remove_duplicate=False)))
        self._names = (_names_of(one), _names_of(other))
        if list(modules[0]) != list(modules[1]):
            words = [
                _short(", ".join(list(mine.keys() - others.keys()) or mine))
                for mine, others in (modules, modules[::-1])
            ]
            return self.differ(f"{root}'s modules", *words)
        for name, module in modules[0].items():
            self._partners.setdefault(id(module), id(modules[1][name]))
        seen: set[int] = set()
        for name, module in modules[0].items():
            path: Path = ((root, root), ("module", name))
            twin = modules[1][name]
            if self._partners[id(module)] != id(twin):
                self.differ(path, "one module in several places", "several modules")
            elif id(module) not in seen:
                seen.add(id(module))
                self._modules(path, module, twin)
        self._names = ({}, {})

    def _modules(self, path: Path, one: nn.Module, other: nn.Module) -> None:
        if not self._same_class(path, one, other):
            return
        if parts_of(one) is None:
            return self._opaque(path, one, other)
        before = len(self.differences)
        self._parts(path, parts_of(one), parts_of(other), places=("attribute", "hooks"))
        if len(self.differences) == before:  # else a shape says again what an attribute says
            self._parts(path, parts_of(one), parts_of(other), places=("_parameters", "_buffers"))

    def classes(self, one: type, other: type) -> bool:
        """Whether two classes are the same, or made twice by the same code, as those within a function are."""
        if one is other:
            return True
        inner = Comparison()
        inner._open, inner._partners, inner._names = self._open, self._partners, self._names
        inner.values((("class", one.__qualname__),), one, other, exact=True)
        return not inner.differences

    def _same_class(self, path: Path, one: Any, other: Any) -> bool:
        is_same = self.classes(type(one), type(other))
        if not is_same:
            names = (type(one).__qualname__, type(other).__qualname__)
            self.differ(path, *(names if names[0] != names[1] else (f"a {names[0]}", "one of other code")))
        return is_same

    def _values(self, path: Path, one: Any, other: Any) -> None:
        self._num_parts += 1
        if one is other or self.is_over:
            return
        if self._num_parts > _MOST_PARTS:
            self.opaque = True
            self.differ(path, "too many parts to compare", "as many")
        elif _may_vary(path, one) and _may_vary(path, other):
            self._floats(path, float(one), float(other))
        elif isinstance(one, PLAIN) or isinstance(other, PLAIN):
            # A class within a hierarchy of its own (an enumeration of strings) is equal by its value and its class.
            if type(one) is not type(other) or one != other:
                self.differ(path, word(one, beside=other), word(other, beside=one))
        elif isinstance(one, Tensor) and isinstance(other, Tensor):
            self._tensors(path, one, other)
        elif isinstance(one, np.ndarray | np.generic) and isinstance(other, np.ndarray | np.generic):
            if type(one) is not type(other) or not same_arrays(np.asarray(one), np.asarray(other)):
                self.differ(path, word(one), word(other))
        else:
            self._trees(path, one, other)

    def _floats(self, path: Path, one: float, other: float) -> None:
        if one.hex() == other.hex():
            return
        if self._is_exact:
            self.differ(path, repr(float(one)), repr(float(other)))
        else:
            self.numbers[path] = float(other)

    def _tensors(self, path: Path, one: Tensor, other: Tensor) -> None:
        mine, others = self._names[0].get(id(one)), self._names[1].get(id(other))
        if mine is not None or others is not None:
            heads = (_tensor_head(mine, one), _tensor_head(others, other))
            if heads[0] != heads[1]:
                self.differ(path, *_where_unlike(*heads))
        elif one.requires_grad or other.requires_grad:
            # It may be trained from outside: then the first member's is not what the others would see.
            self.opaque = True
            self.differ(path, "a tensor with a gradient", "another one")
        elif not same_tensors(one.detach(), other.detach()):
            same_kind = word(one) == word(other)
            self.differ(path, word(one), "other values" if same_kind else word(other))

    def _trees(self, path: Path, one: Any, other: Any) -> None:
        if isinstance(one, nn.Module) and id(one) in self._partners:
            if self._partners[id(one)] != id(other):
                self.differ(path, "a module of the model", "another one")
            return
        if id(one) in self._open:
            self._return(path, one, other)
            return
        if _is_plain(one) and _is_plain(other):
            if type(one) is not type(other) or one != other:
                self.differ(path, word(one), word(other))
            return
        if isinstance(one, weakref.ref) and isinstance(other, weakref.ref):
            return self._references(path, one(), other())
        parts = (parts_of(one), parts_of(other))
        if parts[0] is None or parts[1] is None:
            self._opaque(path, one, other)
        elif self._same_class(path, one, other):
            self._inside(path, one, other, parts, exact=isinstance(one, _OF_CLASSES))

    def _references(self, path: Path, one: Any, other: Any) -> None:
        if isinstance(one, Tensor) and isinstance(other, Tensor) and id(one) in self._names[0]:
            self._tensors(path, one, other)
        elif one is not other:
            self._opaque(path, one, other)

    def _inside(self, path: Path, one: Any, other: Any, parts: Any, *, exact: bool) -> None:
        self._open[id(one)] = (id(other), path)
        self._is_exact += exact
        self._parts(path, *parts)
        self._is_exact -= exact
        del self._open[id(one)]

    def _return(self, path: Path, one: Any, other: Any) -> None:
        partner, origin = self._open[id(one)]
        if partner != id(other):
            self.differ(path, f"{word(one)} that leads back to itself", "another one")
        self.returns[path] = origin

    def _parts(self, path: Path, one: Parts | None, other: Parts | None, places: tuple[str, ...] | None = None) -> None:
        assert one is not None
        assert other is not None
        if places is None or "attribute" in places:
            for (name, mine), (_, others) in zip(one.head, other.head, strict=False):
                if name != "class" and mine != others:
                    return self.differ(path, *_head_words(name, mine, others))
        steps = [[step for step, _ in parts.inside] for parts in (one, other)]
        if steps[0] != steps[1]:
            return self.differ(path, *(_short(", ".join(str(name) for _, name in mine)) for mine in steps))
        for (step, mine), (_, others) in zip(one.inside, other.inside, strict=True):
            if places is None or step[0] in places:
                self.values((*path, step), mine, others, exact=step[0] in _NEVER_COPIED)

    def _opaque(self, path: Path, one: Any, other: Any) -> None:
        kind = type(one)
        if kind is type(other) and kind.__eq__ is not object.__eq__ and not is_transparent(one):
            try:
                if bool(one == other):
                    return
            except Exception:  # noqa: BLE001 - whatever it raises, the two cannot be compared
                pass
            else:
                return self.differ(path, word(one), word(other))
        self.opaque = True
        self.differ(path, f"{kind.__qualname__}, which cannot be compared", f"another {type(other).__qualname__}")


def word(value: Any, *, beside: Any = None) -> str:
    """A value in a few words, without addresses; with its type where it looks like one ``beside`` it of another."""
    if isinstance(value, Tensor):
        return f"tensor {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.generic):
        return _short(str(value))
    if isinstance(value, np.ndarray):
        return f"array {list(value.shape)} {value.dtype}"
    if isinstance(value, (*PLAIN, float)) or _is_plain(value):
        mixed = beside is not None and type(value) is not type(beside) and isinstance(beside, int | float)
        return _short(repr(value)) + (f" ({type(value).__name__})" if mixed and isinstance(value, int | float) else "")
    return getattr(value, "__qualname__", type(value).__qualname__)


def _is_plain(value: Any) -> bool:
    if isinstance(value, frozenset | set | tuple | list) and type(value) in (frozenset, set, tuple, list):
        return set(map(type, value)) <= set(PLAIN)
    return isinstance(value, np.dtype | slice)


def _may_vary(path: Path, value: Any) -> bool:
    """Whether a number may be another for each member. A whole one of a model's module is its structure; one that an
    objective holds is mostly a setting that it does not read, and where it shapes a tensor no program is made."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and path[0][1] != "model" and abs(value) < 2**53


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_WORD else text[: _LONGEST_WORD - 1] + "…"


def _head_words(name: str, one: Any, other: Any) -> tuple[str, str]:
    if name == "code":
        return (f"the code of {_code_word(one)}", f"that of {_code_word(other)}")
    if name == "globals":
        return ("a function of one module", "of another")
    return (f"{name} {_short(str(one))}", f"{name} {_short(str(other))}")


def _code_word(code: types.CodeType) -> str:
    return f"{code.co_name} (line {code.co_firstlineno})"


def _tensor_head(name: str | None, tensor: Tensor) -> tuple[Any, ...]:
    return (name, str(tensor.dtype), list(tensor.shape), tensor.requires_grad, type(tensor).__name__)


def _where_unlike(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[str, str]:
    labels = ("tied to {}", "{}", "shape {}", "requires_grad={}", "{}")
    pairs = [(label, a, b) for label, a, b in zip(labels, one, other, strict=True) if a != b]
    return tuple(", ".join(label.format(pair[side]) for label, *pair in pairs) for side in (0, 1))  # pyright: ignore[reportReturnType]


def _names_of(model: nn.Module) -> dict[int, str]:
    names: dict[int, str] = {}
    for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in named:
            names.setdefault(id(tensor), name)
    return names
