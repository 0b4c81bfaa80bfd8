"""The references ``module:name``: by them a command line or a run's folder names something in a
person's own code, and a run's folder the application that made it. No other module computes what it
imports."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from volano.errors import UsageError
from volano.record.run_folder import RunFolder
from volano.task import Task

# Modules whose ``task_of(folder)`` makes the task of a run again. They stand above this folder,
# hence their names.
_APPLICATIONS, _STUDIES = "volano.apps.kinds", "volano.apps.study_build"


_LOADED_FILES: dict[tuple[Path, int, int], ModuleType] = {}


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
    module_name, separator, name = reference.rpartition(":")
    if not separator or not module_name or not name:
        raise UsageError(
            "Code must be named as module:name",
            got=repr(reference),
            remedy="For example my_task:task",
        )
    try:
        module = (
            _load_file(module_name) if module_name.endswith(".py") else _load_module(module_name)
        )
    except Exception as error:
        raise UsageError(
            "The module must be importable",
            got=f"{module_name}: {type(error).__name__}: {error}",
            remedy="Run from the folder in which it lies, or mend it; `debug` shows the whole "
            "traceback",
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        public = sorted(other for other in vars(module) if not other.startswith("_"))
        raise UsageError(
            f"{module_name} must have the name",
            got=name,
            remedy=f"It has: {', '.join(public[:12])}",
        ) from error


def load_task(reference: str) -> Task:
    """Returns the Task that ``module:name`` names; see :func:`as_task`."""
    return as_task(load_reference(reference), reference)


def as_task(value: Any, reference: str) -> Task:
    """Returns what a reference named as a Task: it is one, or a function without arguments that
    returns one.

    Raises:
        UsageError: it is neither.
    """
    task = value() if callable(value) and not isinstance(value, Task) else value
    if not isinstance(task, Task):
        raise UsageError(
            "module:name must name a volano.Task or a function that returns one",
            got=f"{reference}: {type(task).__name__}",
        )
    return task


def _load_module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)


def _load_file(path: str) -> Any:
    file = Path(path).resolve()
    stat = file.stat()
    # Looked up more than once in a command, and run once: a file that trains at import would train
    # again.
    key = (file, stat.st_mtime_ns, stat.st_size)
    if key in _LOADED_FILES:
        return _LOADED_FILES[key]
    name = f"volano_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, so that dataclasses and pickles in it find their own module.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    _LOADED_FILES[key] = module
    return module
