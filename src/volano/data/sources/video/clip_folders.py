"""Finds the clips of a folder, with their classes, to train on or to test on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from volano.data.sources.folders import refuse_run, run_notices, subfolders
from volano.data.sources.image.images import class_names
from volano.data.sources.split_folders import (
    files_by_class,
    left_beside,
    loose_in,
    split_folders,
)
from volano.data.sources.split_record import TEST, TRAIN, VALID
from volano.data.sources.tables import alike_in_words
from volano.data.sources.video.clip_files import is_clip, listed_clips
from volano.errors import DataError

_SUFFIXES_SHOWN = (".mp4", ".avi", ".gif", ".webm")


@dataclass(frozen=True, kw_only=True)
class ClipFile:
    """A clip on disk; ``label`` is the index of its class, 0 if there are no classes."""

    path: Path
    label: int
    is_test: bool


@dataclass(frozen=True, kw_only=True)
class FoundClips:
    """The clips below a folder, their classes by name (empty for none), and in words what is left
    out."""

    root: Path
    files: tuple[ClipFile, ...]
    classes: tuple[str, ...]
    notices: tuple[str, ...]


def find_clips(root: Path, known: Collection[str] = ()) -> FoundClips:
    """Finds clips below ``root``: those of the training folder to train on and of the test folder
    (else the validation folder) to test on, if there is one to train on; else all. Sub-folders are
    classes if two or more of them hold clips, and there are no loose clips. ``known``: a run's
    classes, which stay as the run writes them.

    Raises:
        UsageError: ``root`` is a run's folder.
        DataError: there are no clips, a class has none to train on, or there are a validation and
            a test folder alone.
    """
    refuse_run(root)
    runs: set[Path] = set()  # folders of runs below it, which are left out
    notices: list[str] = []
    children = subfolders(root, runs)
    parts = split_folders(root, children, notices) or {}
    train = parts.get(TRAIN)
    held_out = [parts[split] for split in (TEST, VALID) if split in parts]
    test = next((part for part in held_out if listed_clips(part, runs)), None)
    by_class = _by_class(train or root, runs, notices, known)
    classes = class_names(by_class) if "" not in by_class else ()
    files = _labelled(by_class, classes, is_test=False)
    if test is not None:
        held = _by_class(test, runs, notices, known)
        unknown = sorted(set(held) - set(by_class))
        if classes and unknown:
            raise DataError(
                "Every class must have clips to train on",
                got=f"only in {test}: {', '.join(unknown)}",
            )
        files += _labelled(held, classes, is_test=True)
    if not files:
        raise DataError(
            f"A folder of clips must hold some ({', '.join(_SUFFIXES_SHOWN)}, ...)",
            got=f"none in {root}",
            remedy="Name another folder, or none for the embedded sample",
        )
    if train is not None:
        read = [part for part in (train, test) if part is not None]
        notices += left_beside(
            root, read, children, lambda child: listed_clips(child, runs), is_clip, "clips"
        )
    notices += [*run_notices(runs), *(() if known else alike_in_words(classes))]
    return FoundClips(root=root, files=tuple(files), classes=classes, notices=tuple(notices))


def _by_class(
    folder: Path, runs: set[Path], notices: list[str], known: Collection[str]
) -> dict[str, list[Path]]:
    """Returns clips by sub-folder; all under the name "" if fewer than two hold any, or there are
    loose ones, which ``notices`` get."""
    every = listed_clips(folder, runs)
    num_loose = len(loose_in(folder, is_clip))
    found = files_by_class(folder, lambda child: listed_clips(child, runs), runs, known, notices)
    found = {name: paths for name, paths in found.items() if paths}
    if num_loose and len(found) > 1:
        notices.append(
            f"{folder.name}/ holds {num_loose:,} loose clips: its folders are no classes"
        )
    if num_loose or len(found) < 2:
        return {"": every} if every else {}
    return found


def _labelled(
    by_class: dict[str, list[Path]], classes: tuple[str, ...], *, is_test: bool
) -> list[ClipFile]:
    return [
        ClipFile(path=path, label=classes.index(name) if classes else 0, is_test=is_test)
        for name, paths in by_class.items()
        for path in paths
    ]
