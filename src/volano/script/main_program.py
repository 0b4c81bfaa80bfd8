"""Runs a script in this process as ``python`` would run it: arguments, ``__main__``, the first
place of the path, tracebacks, exit code."""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

from volano.errors import UsageError
from volano.imported_files import HiddenModules, names_hidden_by
from volano.script.remembered import Script

_OWN = str(Path(__file__).resolve().parents[1]) + os.sep
# Of the script that runs in this process.
_hidden: list[HiddenModules] = []


class NoSuchModuleError(UsageError):
    """The refusal of a name that no module has."""


def run_as_main(script: Script) -> None:
    """Runs a script to its end. What it raises is raised here; if nobody catches it, Python prints
    and ends as it would for the script alone.

    Raises:
        UsageError: there is no such script.
    """
    if not sys.flags.safe_path:
        folder = script.folder()
        sys.path[0] = str(folder)
        _hidden[:] = [HiddenModules(sys.path[0], names_hidden_by(folder))]
        _hidden[0].exchange()
    try:
        code, spec, file = _module_code(script) if script.is_module else _file_code(script)
    except UsageError:  # nothing of the person's runs: what says so has Python's own modules
        while _hidden:
            _hidden.pop().exchange()
        raise
    sys.argv = [file if script.is_module else script.target, *script.arguments]
    main = types.ModuleType("__main__")
    main.__file__ = file
    main.__loader__ = SourceFileLoader("__main__", file) if spec is None else spec.loader
    main.__spec__ = spec
    main.__package__ = None if spec is None else spec.parent
    # A module there, as Python has it in a main program; here it is a dict.
    vars(main).update(__builtins__=builtins, __cached__=None)
    if sys.version_info < (3, 14):
        vars(main).update(__annotations__={})
    # It stays to the end of the process, as usual: threads, workers and exit handlers look there.
    sys.modules["__main__"] = main
    try:
        exec(code(), vars(main))
    except SystemExit:
        raise
    except BaseException:
        # The hook as the script has left it; it sees the script's part of the tracebacks alone.
        sys.excepthook = _of_script(sys.excepthook)
        raise


def pythons_own_modules() -> contextlib.AbstractContextManager[None]:
    """A context in which Volano imports something while a script runs: beside the script may lie
    files with the names of what it needs."""
    return _hidden[0].set_aside() if _hidden else contextlib.nullcontext()


def after_import(name: str, callback: Callable[[], None]) -> None:
    """Calls a function when a module has been imported for the first time; at once if it has
    been."""
    if name in sys.modules:
        callback()
    else:
        sys.meta_path.insert(0, _AfterImport(name, callback))


class _AfterImport:
    """A finder that lets the usual ones find a module, and calls a function when it has run."""

    def __init__(self, name: str, callback: Callable[[], None]) -> None:
        self._name, self._callback = name, callback
        self._is_asking = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Returns the spec of the usual finders, whose loader is watched."""
        del path, target
        if name != self._name or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            self._watch(spec.loader)
        return spec

    def _watch(self, loader: Any) -> None:
        execute = loader.exec_module

        def execute_and_tell(module: types.ModuleType) -> None:
            del loader.exec_module  # the instance's; the class's is left
            execute(module)
            # Only now: many ask for a spec to see whether there is such a module, and import it
            # later.
            finders: list[Any] = sys.meta_path
            if self in finders:
                finders.remove(self)
                with pythons_own_modules():
                    self._callback()

        loader.exec_module = execute_and_tell


def _file_code(script: Script) -> tuple[Callable[[], CodeType], None, str]:
    script.file()
    path = os.path.join(os.getcwd(), script.target)  # noqa: PTH109, PTH118 - "./" stays in it

    # Compiled when it is run, so that a mistake in its syntax is told as the script's.
    def code() -> CodeType:
        return compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)

    return code, None, path


def _module_code(script: Script) -> tuple[Callable[[], CodeType], ModuleSpec, str]:
    name = script.target
    try:
        spec = importlib.util.find_spec(name) if name.strip(".") == name != "" else None
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # what its package imports is missing
        spec = None
    loader: Any = None if spec is None else spec.loader
    if spec is None or spec.origin is None or not hasattr(loader, "get_code"):
        rule = "A module to run must exist"
        raise NoSuchModuleError(rule, got=repr(name), remedy="Look at the spelling")
    return lambda: loader.get_code(name), spec, spec.origin


def _of_script(
    hook: Callable[..., Any],
) -> Callable[[type[BaseException], BaseException, TracebackType | None], Any]:
    def called(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> Any:
        _leave_own_frames_out(error.with_traceback(traceback), set())
        return hook(kind, error, error.__traceback__)

    return called


def _leave_own_frames_out(error: BaseException, seen: set[int]) -> None:
    """Leaves the frames that led to the script, and those of hooks inside of it, out of an error's
    traceback and of those that it came from."""
    frames: list[TracebackType] = []
    entry = error.__traceback__
    while entry is not None:
        file = entry.tb_frame.f_code.co_filename
        if file == __file__:
            frames.clear()  # the interpreter's way to here
        elif not file.startswith(_OWN):
            frames.append(entry)
        entry = entry.tb_next
    chain: TracebackType | None = None
    for frame in reversed(frames):
        chain = TracebackType(chain, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    error.__traceback__ = chain
    seen.add(id(error))
    for other in (error.__cause__, error.__context__):
        if other is not None and id(other) not in seen:
            _leave_own_frames_out(other, seen)
