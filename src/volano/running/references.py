"""``module:name``: how a command line or a run's folder names something in a person's own code, and how a run's folder
names the application that made it. No other module computes what it imports."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from volano.errors import UsageError
from volano.task import Task

# Modules whose ``task_of(folder)`` makes the task of a run again, by the kind of its source. They stand above this
# folder, hence their names.
_APPLICATIONS = {
    "image": "volano.apps.image.train",
    "text": "volano.apps.text.train",
    "video": "volano.apps.video.train",
    "trial": "volano.apps.study_build",
}


def load_application(kind: str) -> ModuleType:
    """Returns the module that trains an application of this kind.

    Raises:
        UsageError: there is no such application.
    """
    if kind not in _APPLICATIONS:
        raise UsageError("A run is of an application that this version knows", got=repr(kind))
    return importlib.import_module(_APPLICATIONS[kind])


def load_reference(reference: str) -> Any:
    """What ``package.module:name`` or ``path/to/file.py:name`` names; the current folder is looked through too.

    Raises:
        UsageError: it is not of that form, the module does not import, or has no such name.
    """
    module_name, separator, name = reference.rpartition(":")
    if not separator or not module_name or not name:
        raise UsageError("Code is named as module:name", got=repr(reference), remedy="For example my_task:task")
    try:
        module = _load_file(module_name) if module_name.endswith(".py") else _load_module(module_name)
    except Exception as error:
        raise UsageError(
            "The module can be imported",
            got=f"{module_name}: {type(error).__name__}: {error}",
            remedy="Run from the folder in which it lies, or mend it; --debug shows the whole traceback",
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        public = sorted(other for other in vars(module) if not other.startswith("_"))
        raise UsageError(f"{module_name} has the name", got=name, remedy=f"It has: {', '.join(public[:12])}") from error


def load_task(reference: str) -> Task:
    """The Task that ``module:name`` names: a Task, or a function without arguments that returns one.

    Raises:
        UsageError: it is neither.
    """
    value = load_reference(reference)
    task = value() if callable(value) and not isinstance(value, Task) else value
    if not isinstance(task, Task):
        raise UsageError(
            "module:name names a volano.Task or a function that returns one",
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
    name = f"volano_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.exists():
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, so that dataclasses and pickles in it find their own module.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
