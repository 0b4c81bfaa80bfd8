"""The plans of scripts that were found before, by what determines them: code, the shape of the
arguments, the machine, the versions.

Nothing here imports torch before the script does.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from volano.errors import PlanError, UsageError
from volano.imported_files import imported_files
from volano.record.cache_folder import cache_folder, read_record, write_record
from volano.script.plan import ScriptPlan

SCHEMA_VERSION = 1
_ARCHIVES = (".zip", ".pyz")  # which Python runs by a __main__.py in them
# Options whose values say how long, from where and to where: none of them changes what a step
# costs.
_FREE = re.compile(
    r"--?(\w*[-_])?(epochs?|steps?|iters?|iterations|seed|lr|learning[-_]rate|wd|weight[-_]decay"
    r"|momentum|out|output|output[-_]dir|log[-_]?dir|save[-_]?dir|run[-_]name|name|resume)"
)


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script with its arguments, as they follow ``python``.

    Attributes:
        target: path of the file, or name of the module.
        is_module: whether it is run by ``python -m``.
        arguments: what follows it.
    """

    target: str
    is_module: bool = False
    arguments: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The script as a command line names it."""
        return f"-m {self.target}" if self.is_module else self.target

    def file(self) -> Path:
        """Returns the file whose code runs first.

        Raises:
            UsageError: there is none, or it is no script.
        """
        if self.is_module:
            return _file_of_module(self.target)
        path = Path(self.target)
        if path.suffix == ".ipynb":
            raise UsageError(
                "A script must be Python",
                got=f"the notebook {path}",
                remedy=f"Convert it: jupyter nbconvert --to script {path}",
            )
        if not self.target:
            raise UsageError("A script must be a file of Python", got="an empty name")
        if path.suffix in _ARCHIVES:
            raise UsageError(
                "A script must be a file of Python",
                got=f"the archive {path}",
                remedy="Unpack it, and name the file in it, or -m MODULE",
            )
        if not _is_there(path, Path.is_file):
            got = f"{path}, a folder" if _is_there(path, Path.is_dir) else f"no such file: {path}"
            raise UsageError("A script must be a file of Python", got=got)
        return path

    def misplaced(self, flags: Iterable[str]) -> list[str]:
        """Returns those of Volano's flags that stand among the script's arguments though no code of
        the script names them."""
        given = {argument.partition("=")[0] for argument in self.arguments}
        found = sorted(given.intersection(flags))
        if not found:
            return []
        with contextlib.suppress(OSError, UsageError):
            text = "".join(path.read_text(errors="replace") for path in own_code(self))
            return [flag for flag in found if not re.search(_named(flag), text)]
        return []

    def folder(self) -> Path:
        """Returns the folder from which the script imports first, as Python has it."""
        return Path.cwd() if self.is_module else Path(os.path.realpath(self.target)).parent


@dataclass(frozen=True, kw_only=True)
class RememberedScript:
    """A plan that was found for a script before.

    Attributes:
        fingerprint: the digest under which it was found.
        script: the script as the command line named it.
        created: seconds since 1970.
        machine: what of the machine it depends on.
        plan: the plan; an empty one if nothing was faster.
        figures: the figures that led to it.
        path: its file.
    """

    fingerprint: str
    script: str
    created: float
    machine: list[Any]
    plan: ScriptPlan
    figures: dict[str, Any]
    path: Path

    def to_json(self) -> dict[str, Any]:
        """Returns the fields."""
        return {**vars(self), "plan": self.plan.to_json(), "path": str(self.path)}


def remember(
    script: Script, plan: ScriptPlan, *, on: list[Any] | None = None, **figures: Any
) -> str | None:
    """Remembers a plan for a script, with figures that led to it. Returns why it could not be
    written, or None.

    Args:
        script: the script and its arguments.
        on: the machine as the script's process saw it; None asks, and imports torch.
        figures: what led to it.
    """
    key = digest(script)
    record = {
        "schema_version": SCHEMA_VERSION,
        "script": script.words,
        "created": time.time(),
        "machine": machine() if on is None else on,
        "plan": plan.to_json(),
        "figures": figures,
    }
    return write_record(_file(key), record)


def remembered(script: Script) -> ScriptPlan | None:
    """Returns the plan that was found for a script on this machine; None if there is none, or none
    that this version can read. Imports torch if there may be one.

    Plans are found in one process; of several ranks on a machine, each takes what holds for it.
    """
    found = _read(_file(digest(script)))
    ranks = num_ranks()
    if found is None:
        return None
    if ranks == 1:
        return found.plan if found.machine == machine() else None
    name, num_cores, _ = machine()  # torchrun sets the number of threads
    is_same = found.machine[:2] == [name, num_cores]
    return found.plan.for_ranks(ranks, num_cores) if is_same else None


def remembered_spin_count(script: Script) -> int | None:
    """Returns how long threads wait under the plan that may be remembered for a script. Imports
    nothing: it is to be known before torch is loaded, and changes no number on any machine."""
    found = _read(_file(digest(script)))
    return None if found is None else found.plan.spin_count


def num_ranks(name: str = "WORLD_SIZE", otherwise: int = 1) -> int:
    """Returns how many ranks torchrun says that there are; ``otherwise`` if it says no number."""
    told = os.environ.get(name, "")
    return int(told) if told.isdecimal() and len(told) < 10 else otherwise


def may_be_remembered(script: Script) -> bool:
    """Returns whether there may be a plan for a script. Imports nothing."""
    try:
        return _file(digest(script)).is_file()
    except UsageError:
        return False  # a module whose code is not looked at


def list_scripts() -> list[RememberedScript]:
    """Returns all remembered plans of scripts that can be read, the newest first."""
    found = [_read(path) for path in sorted(scripts_folder().glob("*.json"))]
    return sorted((one for one in found if one is not None), key=lambda one: -one.created)


def forget_scripts() -> int:
    """Removes every remembered plan of a script, and how long scripts took. Returns how many plans
    there were."""
    paths = list(scripts_folder().glob("*.json"))
    for path in [*paths, *scripts_folder().glob("lengths/*.json")]:
        path.unlink(missing_ok=True)
    return len(paths)


def digest(script: Script) -> str:
    """Returns 32 hexadecimal digits of a script's code, that of the files beside it that it
    imports, the shape of its arguments, and the versions."""
    text = {
        "code": [_form(*found) for found in sorted(own_code(script).items())],
        "arguments": argument_shape(script.arguments),
        "versions": [*map(_version, ("volano", "torch", "lightning", "transformers"))],
        "python": platform.python_version(),
    }
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:32]


def machine() -> list[Any]:
    """Returns what of this machine a plan depends on, as this process sees it: a script may have
    set variables of the environment. Imports torch."""
    from volano.device import Device
    from volano.device.machine import name_of, num_cores

    return [name_of(Device()), num_cores(), os.environ.get("OMP_NUM_THREADS")]


def argument_shape(arguments: tuple[str, ...]) -> list[str]:
    """Returns the arguments without the values that say how long, from where and to where."""
    return [fixed for fixed, _ in _parted(arguments)]


def free_values(arguments: tuple[str, ...]) -> dict[str, str]:
    """Returns the values that are no part of the shape, by their options."""
    return {name: value for name, value in _parted(arguments) if value is not None}


def _parted(arguments: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """Yields what belongs to the shape, each with the value that does not; None if it has none."""
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, separator, value = argument.partition("=")
        if _FREE.fullmatch(name) is None:
            yield argument, None
        elif separator:
            yield name, value
        else:
            has_value = waiting and not waiting[0].startswith("-")
            yield name, waiting.pop(0) if has_value else None


def own_code(script: Script) -> dict[Path, ast.Module]:
    """Returns the script's file and those beside it that it imports, directly or not, with their
    code; a file that does not parse is left out."""
    return imported_files([Path(os.path.realpath(script.file()))], script.folder())


def _is_there(path: Path, is_one: Callable[[Path], bool]) -> bool:
    try:
        return is_one(path)
    except OSError:
        return False


def _form(path: Path, tree: ast.Module) -> str:
    """Returns code without comments and layout; as it is if it nests deeper than Python walks, or
    holds a number with more digits than it writes."""
    try:
        return ast.dump(tree)
    except (RecursionError, ValueError):
        return path.read_bytes().hex()


def _file_of_module(name: str) -> Path:
    # Not imported: its packages would be, before the script's own start.
    place = Path.cwd().joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__main__.py"):
        if _is_there(path, Path.is_file):
            return path
    raise UsageError(
        "A module's code must lie in the current folder for its plan to be remembered",
        got=f"no {name.replace('.', '/')}.py here",
        remedy="Run from the folder in which it lies, or give --plan FILE",
    )


def _named(flag: str) -> str:
    """Returns the pattern of an option's name in code: as argparse has it, as a parameter or a
    field, or as a text."""
    name = flag.strip("-").replace("-", "_")
    return rf"{flag}\b|\b{name}\s*[:=]|['\"]{name}['\"]"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def scripts_folder() -> Path:
    """Returns the folder of what is remembered of scripts."""
    return cache_folder() / "scripts"


def _file(key: str) -> Path:
    return scripts_folder() / f"{key}.json"


def _read(path: Path) -> RememberedScript | None:
    record = read_record(path, SCHEMA_VERSION)
    try:
        return RememberedScript(
            fingerprint=path.stem,
            script=str(record["script"]),
            created=float(record["created"]),
            machine=list(record["machine"]),
            plan=ScriptPlan.from_json(record["plan"]),
            figures=dict(record["figures"]),
            path=path,
        )
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError, PlanError):
        return None  # damaged, or of another version: found again
