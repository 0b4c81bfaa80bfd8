"""Finds the images of a folder of class folders, and says what of it is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from volano.data.sources.folders import run_notices, subfolders
from volano.data.sources.image.decoding import ImageFile
from volano.data.sources.image.image_names import is_image, listed, others_in_words
from volano.data.sources.image.images import class_names
from volano.data.sources.split_folders import (
    files_by_class,
    left_beside,
    loose_in_words,
    split_folders,
)
from volano.data.sources.split_record import TRAIN
from volano.data.sources.tables import alike_in_words
from volano.errors import DataError

_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """The files of a folder by split and class, its classes, its folder to train on, and in words
    what is left out."""

    by_split: Mapping[str, Mapping[str, Sequence[Path]]]
    folders: Mapping[str, Path]
    classes: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def train(self) -> Path:
        """The folder that is trained on."""
        return self.folders[TRAIN]

    def labelled(self) -> dict[str, list[ImageFile]]:
        """Returns the files of each split with their classes.

        Raises:
            DataError: a class has none to train on.
        """
        numbers = {name: label for label, name in enumerate(self.classes)}
        for split, by_class in self.by_split.items():
            unknown = sorted(by_class.keys() - numbers.keys())
            if unknown:
                raise DataError(
                    "Every class must have images to train on",
                    got=f"only in {self.folders[split]}: {', '.join(unknown[:5])}",
                )
        return {
            split: [
                ImageFile(path=path, label=numbers[name])
                for name, paths in by_class.items()
                for path in paths
            ]
            for split, by_class in self.by_split.items()
        }


def find_class_folders(root: Path, known: Collection[str] = ()) -> ClassFolders:
    """Finds the images below ``root``: those of the folders of its splits, if one is to train on;
    else all. ``known``: a run's classes, which stay as the run writes them.

    Raises:
        DataError: there are none to train on.
    """
    runs: set[Path] = set()
    others: Counter[str] = Counter()
    notices: list[str] = []
    children = subfolders(root, runs)
    parts = split_folders(root, children, notices, lambda folder: bool(listed(folder)))
    folders = parts or {TRAIN: root}
    found: dict[str, dict[str, list[Path]]] = {}
    for split, folder in folders.items():
        every = files_by_class(
            folder, lambda child: listed(child, runs, others), runs, known, notices
        )
        by_class = {name: paths for name, paths in every.items() if paths}
        if split != TRAIN and not by_class:
            notices.append(f"{folder} holds no class folders and is not used")
            continue
        found[split] = by_class
        notices += _left_out(folder, every)
    if not found[TRAIN]:
        raise DataError(
            "A folder of images must hold a sub-folder for each class",
            got=f"{folders[TRAIN]} with {len(listed(folders[TRAIN]))} images and 0 sub-folders "
            "that hold any",
            remedy="Sort the images as CLASS/IMAGE.jpg, or name them in a table of path and label "
            "(.csv)",
        )
    if parts is not None:
        read = list(parts.values())
        notices += left_beside(
            root, read, children, lambda child: listed(child, runs), is_image, "images"
        )
    classes = class_names(found[TRAIN])
    notices += [*others_in_words(others), *run_notices(runs)]
    notices += () if known else alike_in_words(classes)
    return ClassFolders(by_split=found, folders=folders, classes=classes, notices=tuple(notices))


def _left_out(folder: Path, every: Mapping[str, Sequence[Path]]) -> list[str]:
    """Returns in words what of a split's folder belongs to no class."""
    said = loose_in_words(folder, is_image, "images")
    empty = [name for name, paths in every.items() if not paths]
    if empty:
        names = f"{', '.join(empty[:_MOST_NAMED])}{', ...' * (len(empty) > _MOST_NAMED)}"
        said.append(f"folders of {folder.name}/ without images are no classes: {names}")
    return said
