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


def is_run(folder: Path) -> bool:
    """Checks whether a folder belongs to a run."""
    return all((folder / name).is_file() for name in _RUN_FILES)


def walk(root: Path, runs: set[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yields the folders at and below ``root``, links followed, and the names of their files,
    sorted. Folders of runs are added to ``runs`` instead."""
    for parent, folders, names in os.walk(root, followlinks=True):
        folder = Path(parent)
        if is_run(folder):
            runs.add(folder)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(name for name in names if not name.startswith("."))


def subfolders(folder: Path, runs: set[Path]) -> list[Path]:
    """Returns the folders in one, sorted; those of runs are added to ``runs`` instead."""
    children = sorted(
        child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")
    )
    runs.update(child for child in children if is_run(child))
    return [child for child in children if child not in runs]


def run_notices(runs: Collection[Path]) -> tuple[str, ...]:
    """Returns the notices about the folders of runs that were left out."""
    if not runs:
        return ()
    what = "1 folder of a run is" if len(runs) == 1 else f"{len(runs):,} folders of runs are"
    return (f"{what} not read as data: {min(runs)}",)


def refuse_run(path: Path) -> None:
    """Raises UsageError if a run's folder is named as data."""
    if is_run(path):
        raise UsageError(
            "Data must not come from a run's folder",
            got=str(path),
            remedy="Name the folder that the data lies in",
        )
