"""What callables carry with them: whether two of them carry the same but for numbers, and copies with other numbers.

A callable is seen as a tree: a function leads to what its cells and defaults hold, a partial to its arguments, a bound
method to its object, an object to its attributes, a container to its items. Globals are not part of it. Only ``==`` of
plain values is called; no method of the user's runs.
"""

from __future__ import annotations

import collections
import functools
import pathlib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Step = tuple[str, Any]  # the kind of a place within its parent, and its name there
Path = tuple[Step, ...]
PLAIN = (
    *(bool, int, complex, str, bytes, range, type(None), type(...), type(NotImplemented)),
    *(torch.dtype, torch.device, pathlib.PurePath),
)
_DICTS = (dict, collections.OrderedDict, collections.defaultdict, types.MappingProxyType)
_OF_MODULES = ("_parameters", "_buffers", "_modules")
_SIZE_OF_OBJECT, _SIZE_OF_POINTER = object.__basicsize__, tuple.__itemsize__
# The last is what copying an object leaves at its class.
_NOT_OF_CLASSES = frozenset({"__dict__", "__weakref__", "__doc__", "_abc_impl", "__slotnames__"})
_EMPTY = "an empty cell"


class Parts(NamedTuple):
    """A value opened up.

    Attributes:
        head: what must be equal as it stands, each with a word for it.
        inside: the values that it leads to, by their places.
    """

    head: tuple[tuple[str, Any], ...]
    inside: list[tuple[Step, Any]]


def parts_of(value: Any) -> Parts | None:
    """A value opened up, or None where that cannot be done: it is then known by identity alone."""
    for kinds, open_up in _OPENERS:
        if isinstance(value, kinds):
            return open_up(value)
    return _of_object(value) if is_transparent(value) else None


def text_of(path: Path) -> str:
    """A path as a person writes it: ``objective.config.weights[0]``."""
    text = ""
    for kind, name in path:
        if kind in ("item", "argument"):
            text += f"[{name!r}]"
        elif name != "":
            text += f".{name}" if text else str(name)
    return text


def is_transparent(value: Any) -> bool:
    """Whether all that an object holds are its attributes: its class is written in Python, upon ``object``."""
    kind = type(value)
    slots = _slots_of(kind)
    room = _SIZE_OF_OBJECT + _SIZE_OF_POINTER * (len(slots) + 2)  # for its attributes and its weak references
    has_attributes = hasattr(value, "__dict__") or bool(slots) or "__slots__" in kind.__dict__
    if not has_attributes or kind.__basicsize__ > room or kind.__module__ == "builtins":
        return False
    try:
        object.__new__(kind)
    except TypeError:  # memory that another constructor lays out
        return False
    return True


def _slots_of(kind: type) -> list[str]:
    return [
        name
        for base in kind.__mro__
        for name, value in base.__dict__.items()
        if isinstance(value, types.MemberDescriptorType) and name != "__weakref__"
    ]


def _of_function(value: types.FunctionType) -> Parts:
    code = value.__code__
    inside: list[tuple[Step, Any]] = []
    for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
        inside.append((("cell", name), _content(cell)))
    defaults = value.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    inside += [(("default", name), item) for name, item in zip(names, defaults, strict=True)]
    inside += [(("keyword_default", name), item) for name, item in (value.__kwdefaults__ or {}).items()]
    inside += [(("attribute", name), item) for name, item in value.__dict__.items()]
    return Parts((("code", code), ("name", value.__qualname__), ("globals", id(value.__globals__))), inside)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _of_partial(value: functools.partial[Any]) -> Parts:
    inside: list[tuple[Step, Any]] = [(("function", "func"), value.func)]
    inside += [(("argument", index), item) for index, item in enumerate(value.args)]
    inside += [(("keyword", name), item) for name, item in value.keywords.items()]
    inside += [(("attribute", name), item) for name, item in value.__dict__.items()]
    return Parts((("class", type(value)),), inside)


def _of_method(value: types.MethodType) -> Parts:
    return Parts((), [(("function", value.__func__.__name__), value.__func__), (("self", ""), value.__self__)])


def _of_dict(value: Mapping[Any, Any]) -> Parts | None:
    if type(value) not in _DICTS or not all(isinstance(key, (*PLAIN, float, tuple)) for key in value):
        return None
    factory = getattr(value, "default_factory", None)
    inside: list[tuple[Step, Any]] = [] if factory is None else [(("factory", "default_factory"), factory)]
    head = (("class", type(value)), ("keys", list(value)))
    return Parts(head, inside + [(("item", key), item) for key, item in value.items()])


def _of_sequence(value: list[Any] | tuple[Any, ...]) -> Parts | None:
    if type(value) not in (list, tuple) and not hasattr(type(value), "_fields"):
        return None
    named = getattr(type(value), "_fields", None)
    kind = "item" if named is None else "field"
    steps = range(len(value)) if named is None else named
    head = (("class", type(value)), ("length", len(value)))
    return Parts(head, [((kind, step), item) for step, item in zip(steps, value, strict=True)])


def _of_module(value: nn.Module) -> Parts | None:
    if isinstance(value, torch.jit.ScriptModule):  # its parts are torch's own objects, in C++
        return None
    inside: list[tuple[Step, Any]] = []
    for name, item in value.__dict__.items():
        if name in _OF_MODULES:
            continue
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and isinstance(item, dict):
            # Their keys count all hooks of a process.
            inside.append((("hooks", name), list(item.values())))
        else:
            inside.append((("attribute", name), item))
    for place in _OF_MODULES:
        inside += [((place, name), item) for name, item in value.__dict__[place].items()]
    names = tuple(tuple(value.__dict__[place]) for place in _OF_MODULES)
    return Parts((("class", type(value)), ("names of tensors and modules", names)), inside)


def _of_class(value: type) -> Parts:
    inside: list[tuple[Step, Any]] = [(("base", base.__name__), base) for base in value.__bases__]
    inside += [(("attribute", name), item) for name, item in vars(value).items() if name not in _NOT_OF_CLASSES]
    names = sorted(vars(value).keys() - _NOT_OF_CLASSES)
    return Parts((("name", f"{value.__module__}.{value.__qualname__}"), ("attributes", names)), inside)


def _of_property(value: property) -> Parts:
    return Parts((), [(("function", name), getattr(value, name)) for name in ("fget", "fset", "fdel")])


def _of_wrapped(value: staticmethod[..., Any] | classmethod[Any, ..., Any]) -> Parts:
    return Parts((("class", type(value)),), [(("function", "__func__"), value.__func__)])


def _of_slot(value: types.MemberDescriptorType) -> Parts:
    return Parts((("name", value.__name__),), [])


def _of_object(value: Any) -> Parts:
    slots = [name for name in _slots_of(type(value)) if _is_set(value, name)]
    inside: list[tuple[Step, Any]] = [(("attribute", name), object.__getattribute__(value, name)) for name in slots]
    own = getattr(value, "__dict__", {})
    inside += [(("attribute", name), item) for name, item in own.items()]
    return Parts((("class", type(value)), ("attributes", [name for (_, name), _ in inside])), inside)


def _is_set(value: Any, name: str) -> bool:
    try:
        object.__getattribute__(value, name)
    except AttributeError:
        return False
    return True


_OPENERS: tuple[tuple[Any, Callable[[Any], Parts | None]], ...] = (
    (types.FunctionType, _of_function),
    (functools.partial, _of_partial),
    (types.MethodType, _of_method),
    (_DICTS, _of_dict),
    ((list, tuple), _of_sequence),
    (nn.Module, _of_module),
    (type, _of_class),
    (property, _of_property),
    ((staticmethod, classmethod), _of_wrapped),
    ((types.MemberDescriptorType, types.GetSetDescriptorType), _of_slot),
)


def same_tensors(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same in kind, place and bits of their values."""
    if (one.dtype, one.shape, one.device, type(one)) != (other.dtype, other.shape, other.device, type(other)):
        return False
    if one.is_meta or one.layout != other.layout or one.layout != torch.strided:
        return False
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())


def same_arrays(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays hold the same bits; arrays of objects never do."""
    if one.dtype != other.dtype or one.shape != other.shape or one.dtype.hasobject:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))


@dataclass(frozen=True, kw_only=True)
class CallableTree:
    """How a copy of a value with other numbers is made.

    Attributes:
        numbers: the places of the numbers.
        returns: places at which the value leads back to one that it came by, and that place.
    """

    numbers: frozenset[Path]
    returns: Mapping[Path, Path]

    @functools.cached_property
    def touched(self) -> frozenset[Path]:
        """The places that are made anew: those on the way to a number, or back to such a one."""
        ways = {path[:length] for path in self.numbers for length in range(len(path) + 1)}
        back = [path for path, origin in self.returns.items() if origin in ways]
        return frozenset(ways | {path[:length] for path in back for length in range(len(path) + 1)})

    def copy(self, value: Any, numbers: Mapping[Path, Any], path: Path = ()) -> Any:
        """``value``, which lies at ``path``, with ``numbers`` at their places. What holds none of them is shared with
        ``value``; ``value`` itself is not changed."""
        return self._copied(value, path, numbers, {})

    def _copied(self, value: Any, path: Path, numbers: Mapping[Path, Any], made: dict[Path, Any]) -> Any:
        if path in numbers:
            return numbers[path]
        if path not in self.touched:
            return value
        if path in self.returns:
            return made.get(self.returns[path], value)
        parts = parts_of(value)
        assert parts is not None
        new, fill = _shell(value)
        made[path] = new
        inside = {step: self._copied(item, (*path, step), numbers, made) for step, item in parts.inside}
        return fill(inside)


def _shell(value: Any) -> tuple[Any, Callable[[dict[Step, Any]], Any]]:
    """A new value of the same kind, and what fills it and returns it. It exists before it is filled, since what it
    leads to may lead back to it; tuples and methods cannot, and are None until then."""
    if isinstance(value, types.FunctionType):
        return shell_of_function(value)
    if isinstance(value, functools.partial):
        new = type(value)(_EMPTY.__len__)
        return new, functools.partial(_fill_partial, new)
    if isinstance(value, types.MethodType):
        return None, lambda inside: types.MethodType(*inside.values())
    if isinstance(value, tuple):
        return None, lambda inside: tuple.__new__(type(value), inside.values())
    if isinstance(value, list):
        new = []
        return new, lambda inside: (new.extend(inside.values()), new)[1]
    if isinstance(value, types.MappingProxyType):
        return None, lambda inside: types.MappingProxyType({name: item for (_, name), item in inside.items()})
    if isinstance(value, dict):
        new = value.copy()
        return new, functools.partial(_fill_dict, new)
    new = object.__new__(type(value))
    return new, functools.partial(_fill_module if isinstance(value, nn.Module) else _fill_object, new, value)


def shell_of_function(value: types.FunctionType) -> tuple[Any, Callable[[dict[Step, Any]], Any]]:
    """A new function of the same code, and what fills its cells and defaults and returns it."""
    names = value.__code__.co_freevars
    cells = tuple(types.CellType() for _ in names)
    new = types.FunctionType(value.__code__, value.__globals__, value.__name__, None, cells)
    new.__qualname__, new.__module__, new.__doc__ = value.__qualname__, value.__module__, value.__doc__
    new.__annotations__ = value.__annotations__

    def fill(inside: dict[Step, Any]) -> Any:
        for name, cell in zip(names, cells, strict=True):
            if inside[("cell", name)] is not _EMPTY:
                cell.cell_contents = inside[("cell", name)]
        new.__defaults__ = tuple(item for (kind, _), item in inside.items() if kind == "default") or None
        new.__kwdefaults__ = {name: item for (kind, name), item in inside.items() if kind == "keyword_default"} or None
        new.__dict__.update({name: item for (kind, name), item in inside.items() if kind == "attribute"})
        return new

    return new, fill


def _fill_partial(new: Any, inside: dict[Step, Any]) -> Any:
    arguments = tuple(item for (kind, _), item in inside.items() if kind == "argument")
    keywords = {name: item for (kind, name), item in inside.items() if kind == "keyword"}
    attributes = {name: item for (kind, name), item in inside.items() if kind == "attribute"}
    new.__setstate__((inside[("function", "func")], arguments, keywords, attributes))
    return new


def _fill_dict(new: dict[Any, Any], inside: dict[Step, Any]) -> Any:
    new.update({name: item for (kind, name), item in inside.items() if kind == "item"})
    return new


def _fill_object(new: Any, value: Any, inside: dict[Step, Any]) -> Any:
    own = getattr(value, "__dict__", {})
    for (_, name), item in inside.items():
        if name in own:
            new.__dict__[name] = item
        else:  # in a slot
            object.__setattr__(new, name, item)
    return new


def _fill_module(new: nn.Module, value: nn.Module, inside: dict[Step, Any]) -> Any:
    new.__dict__.update(value.__dict__)
    for place in _OF_MODULES:
        new.__dict__[place] = dict(value.__dict__[place])
    for (kind, name), item in inside.items():
        if kind in _OF_MODULES:
            new.__dict__[kind][name] = item
        elif kind == "attribute":
            new.__dict__[name] = item
    return new
