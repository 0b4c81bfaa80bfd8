"""The files that a person's code imports from beside it, those too that have the name of one of
Python's own modules, such as ``secrets.py``.

``python SCRIPT.py`` takes the person's file: the script's folder is the first on the path. Here
Volano has loaded Python's own before. So these give way while the person's code is imported or
runs, and come back for what Volano imports after it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import sys
import sysconfig
import warnings
from collections.abc import Collection, Iterable, Iterator
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path
from types import ModuleType

# Packages that Volano imports after a script has begun, and scripts seldom do.
_ALSO = frozenset({"safetensors"})


def parse_code(code: str | bytes) -> ast.Module:
    """Returns the tree of some code. What Python warns of in it is said when the code runs.

    Raises:
        SyntaxError: it is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def imported_files(files: Iterable[Path], folder: Path) -> dict[Path, ast.Module]:
    """Returns files and those that they import from a folder, directly or not, with their code; one
    that is not there, or does not parse, is left out. Nothing is run."""
    found, waiting = dict[Path, ast.Module](), [*files]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        try:
            if not path.is_file():
                continue
            tree = parse_code(path.read_bytes())
        # What may not be looked at, or has too long a name, Python does not import either.
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        found[path] = tree
        waiting += _imports(tree, path, folder)
    return found


def places_of(folder: Path, name: str) -> Iterator[Path]:
    """Yields the files that an import by this name may run: of the module and of its packages."""
    parts = name.split(".") if name else []
    for count in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:count])
        yield place / "__init__.py"
        yield place.with_name(f"{place.name}.py")


def _imports(tree: ast.Module, path: Path, folder: Path) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield from places_of(folder, name.name)
        elif isinstance(node, ast.ImportFrom):
            start = path if node.level else folder
            for _ in range(node.level):  # above the root is the root
                start = start.parent
            module = node.module or ""
            for name in ("", *(f".{alias.name}" for alias in node.names)):
                yield from places_of(start, f"{module}{name}".strip("."))


def names_hidden_by(folder: Path) -> frozenset[str]:
    """Returns the names of Python's own modules, and of what Volano imports beside a script, that
    files in a folder have. What is built in, or frozen into the interpreter, comes before any
    folder."""
    try:
        names = {entry.name.partition(".")[0] for entry in folder.iterdir()}
    except OSError:
        return frozenset()
    known = names & (sys.stdlib_module_names | _ALSO)
    return frozenset(name for name in known if _is_hidden(name, str(folder)))


def _is_hidden(name: str, folder: str) -> bool:
    if any(finder.find_spec(name) is not None for finder in (BuiltinImporter, FrozenImporter)):
        return False
    spec = PathFinder.find_spec(name, [folder])
    return spec is not None and spec.has_location  # a folder without code hides nothing


class HiddenModules:
    """The modules of Python's own whose names files of a folder have, and those files' modules:
    either are loaded.

    Args:
        folder: the folder as the path has it.
        names: names of modules.
    """

    def __init__(self, folder: str, names: Collection[str]) -> None:
        self._folder, self._names = folder, frozenset(names)
        self._others: dict[str, ModuleType] = {}

    def exchange(self) -> None:
        """Puts the others in the place of those that are loaded: at first the folder's, none of
        which is."""
        loaded = {
            name: module
            for name, module in [*sys.modules.items()]
            if name.partition(".")[0] in self._names
        }
        for name in loaded:
            del sys.modules[name]
        sys.modules.update(self._others)
        self._others = loaded

    @contextlib.contextmanager
    def set_aside(self) -> Iterator[None]:
        """A context, within code of the folder's, in which Python's own are imported."""
        if not self._names:
            yield
            return
        path = [*sys.path]
        sys.path[:] = [entry for entry in path if entry != self._folder]
        self.exchange()
        try:
            yield
        finally:
            self.exchange()
            sys.path[:] = path


@contextlib.contextmanager
def imported_from(folder: Path, files: Iterable[Path]) -> Iterator[None]:
    """A context in which a person's files are imported, with a folder on the path from then on: it
    comes first, and what they import is taken from there even if it has the name of one of
    Python's own modules. Afterwards Python's own come first, which others import."""
    entry = str(folder)
    hidden = names_hidden_by(folder)
    inside = {path for path in imported_files(files, folder) if path.is_relative_to(folder)}
    own = {path.relative_to(folder).parts[0].removesuffix(".py") for path in inside}
    modules = _modules_of(entry, hidden & own)
    place = sys.path.index(entry) if entry in sys.path else None
    is_moved = place is None or bool(place and hidden & own)
    if is_moved:
        if place is not None:
            sys.path.remove(entry)
        sys.path.insert(0, entry)
    modules.exchange()
    try:
        yield
    finally:
        modules.exchange()
        if is_moved and hidden and entry in sys.path:
            sys.path.remove(entry)
            sys.path.insert(_behind_pythons_own() if place is None else place, entry)


@functools.cache
def _modules_of(entry: str, names: frozenset[str]) -> HiddenModules:
    return HiddenModules(entry, names)  # a file is run once, whatever imports it


def _behind_pythons_own() -> int:
    """Returns the place on the path behind Python's own modules, before what is installed."""
    paths = sysconfig.get_paths()
    compiled = os.path.join(paths["platstdlib"], "lib-dynload")  # noqa: PTH118 - as on the path
    own = {paths["stdlib"], paths["platstdlib"], compiled}
    return 1 + max((place for place, entry in enumerate(sys.path) if entry in own), default=-1)
