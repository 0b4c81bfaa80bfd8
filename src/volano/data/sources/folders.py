"""Walks through folders of data: in the order of names, without hidden files, and without the
folders of runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from volano.errors import DataError, UsageError
from volano.record.files import check_exists, is_there

# Files that every run's folder holds (record/run_folder.py). Its tokens, pictures and records are
# made from data, but are not data themselves.
_RUN_FILES = ("run.json", "task.json")
NO_FILE = "a pipe, a socket or a device, which may never end"


def is_run(folder: Path) -> bool:
    """Checks whether a folder belongs to a run."""
    return all((folder / name).is_file() for name in _RUN_FILES)


def walk(root: Path, runs: set[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yields the folders at and below ``root``, links followed, and the names of their files,
    sorted. Each folder comes once, by whatever links it is reached, and none that ``root`` itself
    lies in. Folders of runs are added to ``runs`` instead."""
    seen = {_identity(folder) for folder in root.resolve().parents}
    pending = [root]
    while pending:
        folder = pending.pop()
        identity = _identity(folder)
        if identity is None or identity in seen:
            continue
        seen.add(identity)
        if is_run(folder):
            runs.add(folder)
            continue
        folders, names = _listed(folder)
        pending += [folder / name for name in reversed(folders)]  # the first is taken next
        yield folder, names


def subfolders(folder: Path, runs: set[Path]) -> list[Path]:
    """Returns the folders in one, sorted, but for links to what it lies in; those of runs are added
    to ``runs`` instead."""
    above = {_identity(one) for one in (folder, *folder.resolve().parents)}
    children = sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith(".") and _identity(child) not in above
    )
    runs.update(child for child in children if is_run(child))
    return [child for child in children if child not in runs]


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:  # it went away, or cannot be looked at
        return None
    return status.st_dev, status.st_ino


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the names of a folder's folders and files, sorted, without hidden ones.

    Raises:
        DataError: it cannot be listed: what lies there would be missing, and nobody would know.
    """
    folders, names = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                kind = _kind_of(entry)
                if stat.S_ISDIR(kind):
                    folders.append(entry.name)
                elif stat.S_ISREG(kind) or not kind:
                    names.append(entry.name)
    except OSError as error:
        raise DataError(
            "A folder of data must be readable",
            got=f"{folder}: {error.strerror}",
            remedy="Change its permissions, or move it away",
        ) from error
    return sorted(folders), sorted(names)


def _kind_of(entry: os.DirEntry[str]) -> int:
    """Returns the mode of what an entry leads to; 0 for a link that leads nowhere, or to itself: it
    is listed, so that whoever opens it says what is wrong with it. Pipes, sockets and devices are
    not: opening them may wait forever."""
    try:
        return entry.stat().st_mode
    except OSError:
        return 0


def run_notices(runs: Collection[Path]) -> tuple[str, ...]:
    """Returns the notices about the folders of runs that were left out."""
    if not runs:
        return ()
    what = "1 folder of a run is" if len(runs) == 1 else f"{len(runs):,} folders of runs are"
    return (f"{what} not read as data: {min(runs)}",)


def files_to_predict(
    given: Sequence[str | Path],
    listed: Callable[[Path, set[Path]], Sequence[Path]],
    is_one: Callable[[str], bool],
    *,
    what: str,
    one: str,
) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the files that a person names, and those in folders; and notices of folders of runs,
    which are left out.

    Args:
        given: files and folders.
        listed: lists what counts in a folder and below it; gets a set for folders of runs.
        is_one: checks by its name whether a file counts.
        what: what the files are, in words ("images").
        one: what such a file is named like ("an image (.jpg, .png, ...)").

    Raises:
        UsageError: one does not exist, is a run's folder, or is named otherwise.
        DataError: there are none in the folders.
    """
    found: list[Path] = []
    runs: set[Path] = set()
    for path in map(Path, given):
        check_exists(path, "A file to predict must exist")
        refuse_run(path)
        if not path.is_dir() and not is_one(path.name):
            raise UsageError(f"A file to predict must be named like {one}", got=str(path))
        found += listed(path, runs) if path.is_dir() else [path]
    if not found:
        places = ", ".join(map(str, given))
        raise DataError(f"There must be {what} to predict", got=f"none in {places}")
    return found, run_notices(runs)


def is_special(path: Path) -> bool:
    """Checks whether something lies there that is neither a folder nor a regular file."""
    try:
        return path.exists() and not path.is_dir() and not path.is_file()
    except OSError:  # such as a name that no file can have
        return False


def file_named(name: str, folder: Path) -> Path | str:
    """Returns the file that a table in ``folder`` names, or in words why there can be none. If no
    file is called so, backslashes part folders, as Windows writes them, and percent signs are those
    of an address."""
    try:
        os.fsencode(name)
    except UnicodeError:
        return "a name that no file can have"
    path = folder / name
    if not is_there(path):
        others = (name.replace("\\", "/"), unquote(name.removeprefix("file://")))
        path = next((one for other in others if is_there(one := folder / other)), path)
    return NO_FILE if is_special(path) else path


def refuse_run(path: Path) -> None:
    """Raises UsageError if a run's folder is named as data, or what is neither a folder nor a
    file."""
    if is_special(path):
        raise UsageError(
            "Data must lie in a folder or in a regular file",
            got=f"{path}, which is neither: {NO_FILE}",
        )
    if is_run(path):
        raise UsageError(
            "Data must not come from a run's folder",
            got=str(path),
            remedy="Name the folder that the data lies in",
        )
