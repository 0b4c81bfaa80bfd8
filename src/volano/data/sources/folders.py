"""Walks through folders of data: in the order of names, without hidden files, and without the
folders of runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from volano.errors import UsageError

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
    """Returns the names of a folder's folders and files, sorted, without hidden ones; none of a
    folder that cannot be listed."""
    folders, names = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file() or _is_broken_link(entry):
                    names.append(entry.name)
    except OSError:
        return [], []
    return sorted(folders), sorted(names)


def _is_broken_link(entry: os.DirEntry[str]) -> bool:
    # Listed, so that whoever opens it says what is wrong with it; pipes, sockets and devices are
    # not: opening them may wait forever.
    try:
        entry.stat()
    except OSError:
        return True
    return False


def run_notices(runs: Collection[Path]) -> tuple[str, ...]:
    """Returns the notices about the folders of runs that were left out."""
    if not runs:
        return ()
    what = "1 folder of a run is" if len(runs) == 1 else f"{len(runs):,} folders of runs are"
    return (f"{what} not read as data: {min(runs)}",)


def is_special(path: Path) -> bool:
    """Checks whether something lies there that is neither a folder nor a regular file."""
    try:
        return path.exists() and not path.is_dir() and not path.is_file()
    except OSError:  # such as a name that no file can have
        return False


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
