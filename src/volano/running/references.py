"""The references ``module:name``: by them a command line or a run's folder names something in a
person's own code, and a run's folder the application that made it. No other module computes what it
imports."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from volano.errors import UsageError, VolanoError
from volano.imported_files import imported_from, places_of
from volano.record.files import nearest
from volano.record.run_folder import RunFolder
from volano.task import Task
from volano.task.describe import FILE_MODULE

# Modules whose ``task_of(folder)`` makes the task of a run again. They stand above this folder,
# hence their names.
_APPLICATIONS, _STUDIES = "volano.apps.kinds", "volano.apps.study_build"
_LOADED_FILES: dict[tuple[Path, int, int], ModuleType] = {}
# What is being imported now, from the outermost on.
_IMPORTING: list[str] = []


def task_again(folder: RunFolder, kind: str) -> Task:
    """Returns the task of an application's run, or of one that trains a trial, made again from its
    folder.

    Raises:
        UsageError: there is no such application, or its data is no longer there.
    """
    return importlib.import_module(_STUDIES if kind == "trial" else _APPLICATIONS).task_of(folder)


def load_reference(reference: str) -> Any:
    """Loads what ``package.module:name`` or ``path/to/file.py:name`` names; the current folder is
    searched too.

    Raises:
        UsageError: it is not of that form, the module does not import, or has no such name.
    """
    module_name, separator, name = str(reference).rpartition(":")
    if not separator or not module_name or not name:
        raise UsageError(
            "Code must be named as module:name",
            got=repr(reference),
            remedy="For example my_task:task",
        )
    try:
        with _importing(module_name):
            load = _load_file if module_name.endswith(".py") else _load_module
            module = load(module_name)
    except (Exception, SystemExit) as error:
        raise UsageError(
            "The module must be importable",
            got=f"{module_name}: {type(error).__name__}: {error}",
            remedy="Run from the folder in which it lies, or mend it; `debug` shows the traceback",
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        public = sorted(other for other in vars(module) if not other.startswith("_"))
        near = nearest(name, public)
        raise UsageError(
            f"A reference must name something in its module, {module_name}",
            got=repr(name),
            remedy=f"Nearest there: {', '.join(near)}"
            if near
            else f"There are: {', '.join(public[:12])}",
        ) from error


def load_task(reference: str) -> Task:
    """Returns the Task that ``module:name`` names; see :func:`as_task`."""
    return as_task(load_reference(reference), reference)


def as_task(value: Any, reference: str) -> Task:
    """Returns what a reference named as a Task: it is one, or a function without arguments that
    returns one. What by its type is neither is not called.

    Raises:
        UsageError: it is neither, or the function raises.
    """
    rule = "module:name must name a volano.Task or a function that returns one"
    if isinstance(value, Task):
        return value
    reason = _why_not_called(value)
    if reason is not None:
        raise UsageError(rule, got=f"{reference}: {reason}")
    try:
        task = value()
    except VolanoError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            rule,
            got=f"{reference}, which raised {type(error).__name__}: {error}",
            remedy="`debug` shows the whole traceback",
        ) from error
    if not isinstance(task, Task):
        raise UsageError(rule, got=f"{reference}: a function that returns {type(task).__name__}")
    return task


def training_at_import() -> str | None:
    """Returns a notice if this is called by code that is being imported by its reference, else
    None: such code trains whenever it is looked at."""
    if not _IMPORTING:
        return None
    return (
        f"{_IMPORTING[-1]} trains while it is imported, before what was asked for: put that under "
        'if __name__ == "__main__":'
    )


def _why_not_called(value: Any) -> str | None:
    """Returns what a value is if it is no function that may make a task; None if it may."""
    function = value.func if isinstance(value, functools.partial) else value
    if not isinstance(function, types.FunctionType | types.MethodType):
        is_class = isinstance(value, type)
        return f"{value.__name__}, a class" if is_class else type(value).__name__
    if (function.__module__ or "").partition(".")[0] in sys.stdlib_module_names:
        return f"a function of Python's own module {function.__module__}"
    try:
        signature = inspect.signature(value)
        signature.bind()
    except TypeError as error:
        return f"a function with arguments ({error})"
    returns = signature.return_annotation
    name = returns if isinstance(returns, str) else getattr(returns, "__name__", str(returns))
    # An annotation may be a name, a union or a quoted text: it says no only if no Task is in it.
    is_said = returns is not inspect.Signature.empty and "Any" not in name
    return f"a function that returns {name}" if is_said and "Task" not in name else None


@contextlib.contextmanager
def _importing(name: str) -> Iterator[None]:
    _IMPORTING.append(name)
    try:
        yield
    finally:
        _IMPORTING.pop()


def _load_module(name: str) -> Any:
    here = Path.cwd()
    with imported_from(here, places_of(here, name)):
        return importlib.import_module(name)


def _load_file(path: str) -> Any:
    file = Path(path).resolve()
    stat = file.stat()
    # Looked up more than once in a command, and run once: a file that trains at import would train
    # again.
    key = (file, stat.st_mtime_ns, stat.st_size)
    if key in _LOADED_FILES:
        return _LOADED_FILES[key]
    if not file.is_file():
        raise FileNotFoundError(path)
    name = f"{FILE_MODULE}{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, so that dataclasses and pickles in it find their own module.
    sys.modules[name] = module
    # As Python does with a script: it imports what lies beside it.
    with imported_from(file.parent, [file]):
        spec.loader.exec_module(module)
    _LOADED_FILES[key] = module
    return module
