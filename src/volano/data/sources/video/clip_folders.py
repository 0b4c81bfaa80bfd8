"""Finds the clips of a folder, with their classes, to train on or to test on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from volano.data.sources.folders import refuse_run, run_notices, subfolders
from volano.data.sources.image.images import class_names
from volano.data.sources.video.clip_files import listed_clips
from volano.errors import DataError

_SUFFIXES_SHOWN = (".mp4", ".avi", ".gif", ".webm")
_TRAIN_NAMES, _TEST_NAMES = ("train", "training"), ("test", "testing", "val", "valid", "validation")


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

    files: tuple[ClipFile, ...]
    classes: tuple[str, ...]
    notices: tuple[str, ...]


def find_clips(root: Path) -> FoundClips:
    """Finds clips below ``root``: those in train/ to train on and in test/ (else val/) to test on,
    if there is a train/; else all. Sub-folders are classes if two or more of them hold clips, and
    there are no loose clips.

    Raises:
        UsageError: ``root`` is a run's folder.
        DataError: there are no clips, or a class has none to train on.
    """
    refuse_run(root)
    runs: set[Path] = set()  # folders of runs below it, which are left out
    parts = {child.name.lower(): child for child in subfolders(root, runs)}
    train = next((parts[name] for name in _TRAIN_NAMES if name in parts), None)
    held_out = [parts[name] for name in _TEST_NAMES if train is not None and name in parts]
    test = next((part for part in held_out if listed_clips(part, runs)), None)
    by_class = _by_class(train or root, runs)
    classes = class_names(by_class) if "" not in by_class else ()
    files = _labelled(by_class, classes, is_test=False)
    if test is not None:
        held = _by_class(test, runs)
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
    notices = () if train is None else _left_out(root, train, test, runs)
    return FoundClips(files=tuple(files), classes=classes, notices=(*run_notices(runs), *notices))


def _left_out(root: Path, train: Path, test: Path | None, runs: set[Path]) -> tuple[str, ...]:
    """Returns in words which clips lie next to the folders that are read."""
    counts = {
        f"in {child.name}/": len(listed_clips(child, runs))
        for child in subfolders(root, runs)
        if child not in (train, test)
    }
    counts["in no folder"] = sum(path.parent == root for path in listed_clips(root, runs))
    found = ", ".join(f"{count:,} {place}" for place, count in counts.items() if count)
    read = " and ".join(f"{part.name}/" for part in (train, test) if part is not None)
    return (f"clips are read from {read}; left out: {found}",) if found else ()


def _by_class(folder: Path, runs: set[Path]) -> dict[str, list[Path]]:
    """Returns clips by sub-folder; all under the name "" if fewer than two hold any, or there are
    loose ones."""
    every = listed_clips(folder, runs)
    loose = any(path.parent == folder for path in every)
    found = {child.name: listed_clips(child, runs) for child in subfolders(folder, runs)}
    found = {name: paths for name, paths in found.items() if paths}
    if loose or len(found) < 2:
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
