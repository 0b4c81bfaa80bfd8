"""Tells code that a person wrote from what is installed, and reads what stands in it."""

from __future__ import annotations

import dis
import hashlib
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from torch import nn

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
_SET_VARIABLE = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF")
_SET_ATTRIBUTE = ("STORE_ATTR", "DELETE_ATTR")


def digest_text(text: str) -> str:
    """Returns 16 hexadecimal digits for a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_installed(code: CodeType | None) -> bool:
    """Returns whether code comes with Python, a package, or Volano: these have versions."""
    return code is None or code.co_filename.startswith(_INSTALLED)


def is_own_module(module: ModuleType | None) -> bool:
    """Returns whether a module lies in a file of a person's own."""
    file = getattr(module, "__file__", None)
    return file is not None and not file.startswith(_INSTALLED)


def is_own_class(kind: type) -> bool:
    """Returns whether a class is a person's own."""
    module = sys.modules.get(kind.__module__)
    if getattr(module, "__file__", None) is not None:
        return is_own_module(module)
    codes = [getattr(value, "__code__", None) for value in vars(kind).values()]
    return not all(map(is_installed, codes))  # of a notebook, or of text that was executed


def names_in(code: CodeType) -> set[str]:
    """Returns the names of globals and attributes in code, and in functions within."""
    inner = [item for item in code.co_consts if isinstance(item, CodeType)]
    return set(code.co_names).union(*(names_in(item) for item in inner))


def plain_text(value: Any) -> str:
    """Returns the repr of a plain value; of one with a whole number of more digits than Python
    writes (``sys.set_int_max_str_digits``), a text with its hexadecimal digits."""
    try:
        return repr(value)
    except ValueError:
        if isinstance(value, int):
            return hex(value)
        if not isinstance(value, tuple | frozenset):
            raise
        items = [plain_text(item) for item in value]
        return f"{type(value).__name__}{sorted(items) if isinstance(value, frozenset) else items}"


def code_bytes(code: CodeType) -> str:
    """Returns code as a text that is the same in every process: constants hold the code of inner
    functions, whose repr has addresses, and sets have an order of their own in each process."""
    constants = [
        code_bytes(item)
        if isinstance(item, CodeType)
        else repr(sorted(map(plain_text, item)))
        if isinstance(item, frozenset)
        else plain_text(item)
        for item in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


@dataclass
class NamesUsed:
    """The names that code uses, that of functions within included.

    Attributes:
        loaded: the globals that it reads.
        stored: the globals, and variables of outer functions, that it sets.
        attributes_set: the attributes that it sets.
        all: the names of globals and attributes together.
        texts: its constants that are texts, such as keys.
        has_items_stored: whether it sets items of something.
    """

    loaded: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    attributes_set: set[str] = field(default_factory=set)
    all: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    has_items_stored: bool = False

    def update(self, other: NamesUsed, *, with_attributes: bool = True) -> None:
        """Adds the names of other code; ``with_attributes``: also the attributes that it sets."""
        self.loaded |= other.loaded
        self.stored |= other.stored
        self.attributes_set |= other.attributes_set if with_attributes else set()
        self.all |= other.all
        self.texts |= other.texts
        self.has_items_stored |= other.has_items_stored

    def add(self, code: CodeType) -> NamesUsed:
        """Adds the names in more code."""
        # Without constants, whose repr it makes: there is none of thousands of digits.
        bare = code.replace(co_consts=(None,) * len(code.co_consts))
        for instruction in dis.get_instructions(bare):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                self.loaded.add(instruction.argval)
            elif instruction.opname in _SET_VARIABLE:
                self.stored.add(instruction.argval)
            elif instruction.opname in _SET_ATTRIBUTE:
                self.attributes_set.add(instruction.argval)
            self.has_items_stored |= instruction.opname in ("STORE_SUBSCR", "DELETE_SUBSCR")
        self.all |= set(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self.add(constant)
            elif isinstance(constant, str):
                self.texts.add(constant)
        return self
