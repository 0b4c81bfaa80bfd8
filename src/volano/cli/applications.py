"""Which applications there are, and which one a run's folder belongs to.

Each is a module of this folder with ``OPTIONS`` (the options of ``volano train`` that it takes), ``train`` and
``resume``; ``evaluate``, ``predict``, ``generate`` and ``export`` where the application can do that.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from volano.cli import image, text, video
from volano.errors import UsageError

APPLICATIONS: dict[str, ModuleType] = {"image": image, "text": text, "video": video}


def application_of(run: Path) -> ModuleType | None:
    """The application to which a run belongs; None for a task of a person's own.

    Raises:
        UsageError: it is not a run's folder.
    """
    from volano.running.train import kind_of

    return APPLICATIONS.get(kind_of(run))


def act(run: Path, verb: str, function: str, *arguments: Any, **options: Any) -> int:
    """Calls ``function`` of the run's application.

    Raises:
        UsageError: it is the run of a task of a person's own, or of an application that has no such verb.
    """
    application = application_of(run)
    action = getattr(application, function, None)
    if action is None:
        able = [name for name, module in APPLICATIONS.items() if hasattr(module, function)]
        raise UsageError(f"{verb} is for runs of the applications that can: {', '.join(able)}", got=str(run))
    return action(run, *arguments, **options)


def refuse(names: Any, given: dict[str, Any], what: str) -> None:
    """Raises UsageError for options that do not belong to what is trained: none is ignored in silence."""
    for name in sorted(names):
        option = "PATH" if name == "path" else f"--{name.replace('_', '-')}"
        owners = [f"the {owner} application" for owner, module in APPLICATIONS.items() if name in module.OPTIONS]
        raise UsageError(
            f"{option} is a dial of {' and '.join(owners) or 'the applications'}",
            got=f"{option} {given[name]} with {what}",
            remedy="Say it in the task" if what == "a task of your own" else "Leave it out",
        )
