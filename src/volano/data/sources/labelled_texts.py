"""Where labelled texts come from: tables with a column of labels and one of text, and class folders of text files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volano.data.fetch import Fault
from volano.data.sources.folders import refuse_run, run_notices, subfolders
from volano.data.sources.images import class_names
from volano.data.sources.text_tables import (
    LABEL_COLUMNS,
    TABLE_SUFFIXES,
    TEXT_COLUMNS,
    find_column,
    read_rows,
    whole_characters,
)
from volano.data.sources.texts import TextSource, find_texts
from volano.errors import DataError, UsageError

_TEST_NAMES = ("test", "testing", "val", "valid", "validation")
_TRAIN_NAMES = ("train", "training")


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Texts and their classes.

    Attributes:
        texts: none of them empty.
        labels: int64 [N], indices into ``classes``.
        classes: names.
        names: of each text, for tables and errors.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int] | np.ndarray) -> LabelledTexts:
        """The texts at ``rows``, in that order."""
        chosen = [int(row) for row in rows]
        return LabelledTexts(
            texts=tuple(self.texts[row] for row in chosen),
            labels=self.labels[chosen],
            classes=self.classes,
            names=tuple(self.names[row] for row in chosen),
        )


@dataclass(frozen=True, kw_only=True)
class LabelledTextSets:
    """A source's texts by split; ``test`` is None where the source names none."""

    train: LabelledTexts
    test: LabelledTexts | None
    origin: str
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]


def read_labelled_texts(
    path: Path, *, classes: tuple[str, ...] | None = None, least_classes: int = 2
) -> LabelledTextSets:
    """Reads a .csv, .jsonl or .parquet table (columns ``label`` and ``text`` or their usual other names; a column
    ``split`` with the value test or val marks the test set), or a folder of class folders, with or without train/ and
    test/.

    Args:
        path: of the table or the folder.
        classes: of a model, which labels must be among; None takes those that there are.
        least_classes: fewer are refused.

    Raises:
        UsageError: ``path`` does not exist, or is a file that is no table.
        DataError: it holds nothing that can be trained on.
    """
    if not path.exists():
        raise UsageError("The path to train on exists", got=str(path))
    refuse_run(path)
    faults: list[Fault] = []
    notices: list[str] = []
    if path.is_dir():
        rows = list(_folder_rows(path, faults, notices))
    elif path.suffix.lower() in TABLE_SUFFIXES:
        rows = list(_table_rows(path, faults))
    else:
        raise UsageError(
            "Labelled texts come from a .csv, .jsonl or .parquet table or a folder of class folders", got=str(path)
        )
    known = class_names(row.label for row in rows) if classes is None else classes
    if not rows or len(known) < least_classes:
        found = f"{len(rows):,} labelled texts of {len(known)} classes ({', '.join(known[:3])})" if rows else "none"
        reason = f"; {faults[0].path}: {faults[0].reason}" if faults else ""
        raise DataError(
            f"There are labelled texts of at least {least_classes} classes", got=f"{found} in {path}{reason}"
        )
    unknown = sorted({row.label for row in rows} - set(known))
    if unknown:
        raise DataError(
            "Texts to evaluate on are of the run's classes",
            got=f"also {', '.join(unknown[:5])}",
            remedy=f"The run knows {', '.join(known[:10])}",
        )
    test = [row for row in rows if row.is_test]
    train = [row for row in rows if not row.is_test]
    if not train:  # a folder named test/ alone
        train, test = test, []
    return LabelledTextSets(
        train=_gathered(train, known),
        test=_gathered(test, known) if test else None,
        origin=f"{path} ({len(rows):,} texts)",
        faults=tuple(faults),
        notices=tuple(notices),
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    text: str
    label: str
    name: str
    is_test: bool


def _gathered(rows: list[_Row], classes: tuple[str, ...]) -> LabelledTexts:
    number_of = {name: number for number, name in enumerate(classes)}
    return LabelledTexts(
        texts=tuple(row.text for row in rows),
        labels=np.array([number_of[row.label] for row in rows], dtype=np.int64),
        classes=classes,
        names=tuple(row.name for row in rows),
    )


def _table_rows(path: Path, faults: list[Fault]) -> Iterator[_Row]:
    note = functools.partial(_note, faults)
    for number, row in read_rows(path, on_fault=note):
        text, label = (
            row[find_column(row, TEXT_COLUMNS, path, "text")],
            row[find_column(row, LABEL_COLUMNS, path, "labels")],
        )
        name = f"{path.name}:{number}"
        if not isinstance(text, str) or not text.strip():
            note(name, "without text")
        elif label is None or not str(label).strip():
            note(name, "without a label")
        else:
            is_test = str(row.get("split") or "").lower() in _TEST_NAMES
            yield _Row(text=whole_characters(text), label=str(label).strip(), name=name, is_test=is_test)


def _folder_rows(root: Path, faults: list[Fault], notices: list[str]) -> Iterator[_Row]:
    runs: set[Path] = set()
    children = subfolders(root, runs)
    parts = [child for child in children if child.name.lower() in (*_TRAIN_NAMES, *_TEST_NAMES)]
    has_splits = any(child.name.lower() in _TRAIN_NAMES for child in parts)
    for part in parts if has_splits else [root]:
        is_test = has_splits and part.name.lower() in _TEST_NAMES
        for folder in subfolders(part, runs):
            try:
                source = find_texts(folder, runs=runs)
            except DataError as error:
                _note(faults, str(folder), str(error))
                continue
            for document in source.read(faults):
                if document.text.strip():
                    name = f"{folder.relative_to(root)}/{document.name}"
                    yield _Row(text=document.text, label=folder.name, name=name, is_test=is_test)
    notices += run_notices(runs)


def read_texts(files: Sequence[Path]) -> tuple[list[tuple[str, str]], list[Fault]]:
    """Names and texts of files, of the files in folders, and of the rows of tables; and what could not be read.

    Raises:
        UsageError: a file does not exist.
    """
    found: list[tuple[str, str]] = []
    faults: list[Fault] = []
    for file in files:
        if not file.exists():
            raise UsageError("A file to predict exists", got=str(file))
        source: TextSource = find_texts(file)
        for document in source.read(faults):
            found.append((str(file) if document.name == file.name else str(file.parent / document.name), document.text))
    return found, faults



def _note(faults: list[Fault], path: str, reason: str) -> None:
    faults.append(Fault(len(faults), path, reason))
