"""Finds the clips that a table names, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from volano.data.sources.folders import file_named
from volano.data.sources.image.images import class_names
from volano.data.sources.split_record import TEST, TRAIN, VALID
from volano.data.sources.tables import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    TABLE_SUFFIXES,
    find_column,
    labels_of,
    read_rows,
    split_of_row,
    with_columns,
)
from volano.data.sources.video.clip_folders import ClipFile, FoundClips
from volano.errors import DataError

_COLUMNS = ("clip", "video", *PATH_COLUMNS)


def is_table(path: Path) -> bool:
    """Checks whether a path is that of a table."""
    return path.is_file() and path.suffix.lower() in TABLE_SUFFIXES


def clips_of_table(path: Path, known: Sequence[str] = ()) -> FoundClips:
    """Finds the clips of a .csv, .jsonl or .parquet table: a column of files, as seen from the
    table's folder, one of labels, and perhaps ``split`` (train, val or test; val is the test set
    if there is no test, and left out otherwise).

    Args:
        path: path of the table.
        known: a run's classes, by which labels are read: 1.0 may be its 1 or its True.

    Raises:
        DataError: a column or a label is missing, or a class has no clips to train on.
    """
    notices: list[str] = []

    def hear(place: str, reason: str) -> None:
        notices.append(f"left out: {place}: {reason}")

    def find(row: dict[str, Any]) -> tuple[str, str]:
        clip = find_column(row, _COLUMNS, path, "clips")
        return clip, find_column(row, LABEL_COLUMNS, path, "labels")

    rows = list(with_columns(read_rows(path, on_fault=hear, names=_COLUMNS), find, path, hear))
    if not rows:
        raise DataError("A table of clips must have rows", got=f"none in {path}")
    numbers = [number for number, *_ in rows]
    labels, said = labels_of([row[label] for _, row, (_, label) in rows], numbers, path, known)
    splits = [split_of_row(row, f"{path}:{number}") for number, row, _ in rows]
    tested = TEST if TEST in splits or VALID not in splits else VALID
    files, num_left = [], 0
    classes = class_names(labels)
    for (number, row, (clip, _)), name, split in zip(rows, labels, splits, strict=True):
        if split not in (TRAIN, tested):
            num_left += 1
            continue
        file = file_named(_text_of(row[clip], f"{path}:{number}"), path.parent)
        if isinstance(file, str):
            hear(f"{path}:{number}", file)
            continue
        files.append(ClipFile(path=file, label=classes.index(name), is_test=split == tested))
    if num_left:
        notices.append(f"left out: {num_left:,} clips of split val")
    untrained = sorted(set(classes) - {classes[file.label] for file in files if not file.is_test})
    if untrained and len(untrained) < len(classes):  # else all are there to be tested
        raise DataError(
            "Every class must have clips to train on",
            got=f"none of {', '.join(untrained[:5])} in {path}",
        )
    return FoundClips(
        root=path.parent, files=tuple(files), classes=classes, notices=(*notices, *said)
    )


def _text_of(cell: Any, place: str) -> str:
    if not isinstance(cell, str) or not cell.strip():
        raise DataError("Every row of a table of clips must name a file", got=f"none in {place}")
    return cell.strip()
