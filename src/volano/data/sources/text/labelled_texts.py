"""Reads labelled texts: tables with a column of labels and one of text, and class folders of text
files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volano.data.feed.fetch import Fault
from volano.data.sources.folders import refuse_run, run_notices, subfolders
from volano.data.sources.image.images import class_names
from volano.data.sources.split_folders import (
    class_folders,
    left_beside,
    loose_in_words,
    split_folders,
)
from volano.data.sources.split_record import (
    TEST,
    TRAIN,
    VALID,
    SplitMember,
    content_key,
    members_of,
)
from volano.data.sources.tables import (
    TABLE_SUFFIXES,
    TEXT_COLUMNS,
    alike_in_words,
    find_column,
    labels_of,
    read_rows,
    split_of_row,
    with_columns,
)
from volano.data.sources.targets import CLASSES, TargetFormat, Targets, read_targets, target_texts
from volano.data.sources.text.text_tables import whole_characters
from volano.data.sources.text.texts import find_texts, is_text, texts_below
from volano.errors import DataError, UsageError
from volano.record.files import check_exists

_ANY_TARGET = TargetFormat()


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """The texts and their classes.

    Attributes:
        texts: the texts, none of them empty.
        labels: int64 [N], indices into ``classes``; of other kinds of targets as ``Targets`` has
            them.
        classes: names of the classes, or of the targets.
        names: name of each text, for tables and errors.
        kind: the kind of the targets.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]
    kind: str = CLASSES

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int] | np.ndarray) -> LabelledTexts:
        """Returns the texts at ``rows``, in that order."""
        chosen = [int(row) for row in rows]
        return LabelledTexts(
            texts=tuple(self.texts[row] for row in chosen),
            labels=self.labels[chosen],
            classes=self.classes,
            names=tuple(self.names[row] for row in chosen),
            kind=self.kind,
        )

    def members(self) -> list[SplitMember]:
        """Returns the texts as members of a split, in their order."""
        keys = (content_key(text.encode()) for text in self.texts)
        labels = target_texts(self.kind, self.classes, self.labels)
        return members_of(keys, labels, self.classes, self.names)

    def with_more(self, more: LabelledTexts) -> LabelledTexts:
        """Returns these texts, followed by others of the same classes."""
        return LabelledTexts(
            texts=self.texts + more.texts,
            labels=np.concatenate([self.labels, more.labels]),
            classes=self.classes,
            names=self.names + more.names,
            kind=self.kind,
        )


@dataclass(frozen=True, kw_only=True)
class LabelledTextSets:
    """The texts of a source by split.

    Attributes:
        train: texts to train on.
        valid: texts to choose by; None unless the source names train, val and test, all three.
        test: texts for the final figures: test, or val if there is no test; None if the source
            names neither.
        origin: origin of the texts, in words.
        faults: files and rows that could not be read.
        notices: notices about what was left aside.
    """

    train: LabelledTexts
    valid: LabelledTexts | None
    test: LabelledTexts | None
    origin: str
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]


def read_labelled_texts(
    path: Path,
    *,
    classes: tuple[str, ...] | None = None,
    least_classes: int = 2,
    leaves_out_unknown: bool = False,
    target: TargetFormat = _ANY_TARGET,
) -> LabelledTextSets:
    """Reads a .csv, .jsonl or .parquet table (columns ``label`` and ``text`` or their usual other
    names; a column ``split`` says train, val or test; an empty one means train), or a folder of
    class folders, with or without train/, val/ and test/.

    Args:
        path: path of the table or the folder.
        classes: a model's classes, among which labels must be; None takes the labels' own.
        least_classes: least number of classes.
        leaves_out_unknown: whether texts of other classes than ``classes`` are left out, which is
            said, and all sets stand as the source names them.
        target: what a table says of the texts.

    Raises:
        UsageError: ``path`` does not exist, is a file that is not a table, or is a run's folder.
        DataError: it holds nothing that can be trained on, an unknown split, or a class that is
            only tested.
    """
    check_exists(path)
    refuse_run(path)
    faults: list[Fault] = []
    notices: list[str] = []
    rows, targets = _rows_of(path, faults, notices, classes or (), target)
    if targets is not None:
        known: tuple[str, ...] = targets.names
    else:
        known = class_names(row.label for row in rows) if classes is None else classes
    if not rows or (targets is None and len(known) < least_classes):
        found = f"{len(rows):,} labelled texts of {len(known)} classes ({', '.join(known[:3])})"
        reason = f"; {faults[0]}" if faults else ""
        raise DataError(
            f"There must be labelled texts of at least {least_classes} classes",
            got=f"{found if rows else 'none'} in {path}{reason}",
        )
    if targets is None:
        rows = _of_classes(rows, known, notices if leaves_out_unknown else None)
    train, valid, test = ([row for row in rows if row.split == at] for at in (TRAIN, VALID, TEST))
    if not test:
        test, valid = valid, []
    if not train and not leaves_out_unknown:  # a table of only test texts
        train, valid, test = test, [], []
        if len(train) < len(rows):
            notices.append(
                f"{len(rows) - len(train):,} texts of split val are left out: test is evaluated"
            )
    elif classes is None and targets is None:
        _check_trained(train + valid, known, path)
    gathered = functools.partial(_gathered, classes=known, targets=targets)
    return LabelledTextSets(
        train=gathered(train),
        valid=gathered(valid) if valid else None,
        test=gathered(test) if test else None,
        origin=f"{path} ({len(rows):,} texts)",
        faults=tuple(faults),
        notices=tuple(notices),
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    text: str
    label: str
    name: str
    split: str
    place: int = 0  # among the targets of a table


def _rows_of(
    path: Path, faults: list[Fault], notices: list[str], known: Sequence[str], wanted: TargetFormat
) -> tuple[list[_Row], Targets | None]:
    """Returns the rows of a source, and their targets if they are of another kind than classes."""
    if path.is_dir():
        wanted.check_no_table(f"the folder {path}")
        rows = list(_folder_rows(path, faults, notices, known))
        notices += () if known else alike_in_words(row.label for row in rows)
        return rows, None
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _table_rows(path, faults, notices, known, wanted)
    raise UsageError(
        "Labelled texts must come from a .csv, .jsonl or .parquet table or a folder of class "
        "folders",
        got=str(path),
    )


def _of_classes(rows: list[_Row], known: tuple[str, ...], notices: list[str] | None) -> list[_Row]:
    """Returns the texts of the classes; others are left out if ``notices`` may hear of it.

    Raises:
        DataError: there are others.
    """
    unknown = sorted({row.label for row in rows} - set(known))
    if not unknown:
        return rows
    if notices is None:
        raise DataError(
            "Texts to evaluate on must have the run's classes",
            got=f"also {', '.join(unknown[:5])}",
            remedy=f"The run knows {', '.join(known[:10])}",
        )
    notices.append(f"texts of other classes are left out: {', '.join(unknown[:5])}")
    return [row for row in rows if row.label not in unknown]


def _check_trained(rows: list[_Row], classes: tuple[str, ...], path: Path) -> None:
    only_tested = sorted(set(classes) - {row.label for row in rows})
    if only_tested:
        raise DataError(
            "Every class must have texts to train on",
            got=f"only in the test set of {path}: {', '.join(only_tested[:5])}",
            remedy="Add texts of the class to the training set, or remove them from the test set",
        )


def _gathered(
    rows: list[_Row], *, classes: tuple[str, ...], targets: Targets | None
) -> LabelledTexts:
    if targets is None:
        number_of = {name: number for number, name in enumerate(classes)}
        labels = np.array([number_of[row.label] for row in rows], dtype=np.int64)
    else:
        labels = targets.values[[row.place for row in rows]]
    return LabelledTexts(
        texts=tuple(row.text for row in rows),
        labels=labels,
        classes=classes,
        names=tuple(row.name for row in rows),
        kind=CLASSES if targets is None else targets.kind,
    )


def _table_rows(
    path: Path, faults: list[Fault], notices: list[str], known: Sequence[str], wanted: TargetFormat
) -> tuple[list[_Row], Targets | None]:
    """Returns the rows of a table, and their targets if they are of another kind than classes."""
    note = functools.partial(_note, faults)
    found: list[tuple[int, str, tuple[Any, ...], str]] = []
    columns: tuple[str, ...] = ()

    def find(row: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
        return find_column(row, TEXT_COLUMNS, path, "text"), wanted.columns_of(row, path)

    every = read_rows(path, on_fault=note, names=wanted.columns)
    for number, row, (text_column, columns) in with_columns(every, find, path, note):
        text = row[text_column]
        if not isinstance(text, str) or not text.strip():
            note(f"{path.name}:{number}", "without text")
            continue
        cells = tuple(row[name] for name in columns)
        found.append((number, text, cells, split_of_row(row, f"{path}:{number}")))
    numbers, targets = [one[0] for one in found], Targets(kind=CLASSES)
    if found:
        own = {name: [one[2][at] for one in found] for at, name in enumerate(columns)}
        targets = read_targets(own, numbers, path, wanted)
        notices += targets.notices
    if targets.kind == CLASSES:
        labels, said = labels_of([one[2][0] for one in found], numbers, path, known)
        notices += said
    else:
        labels = target_texts(targets.kind, targets.names, targets.values)
    rows = [
        _Row(
            text=whole_characters(text), label=label, name=f"{path.name}:{number}", split=split,
            place=place,
        )
        for place, ((number, text, _, split), label) in enumerate(zip(found, labels, strict=True))
    ]  # fmt: skip
    return rows, None if targets.kind == CLASSES else targets


def _folder_rows(
    root: Path, faults: list[Fault], notices: list[str], known: Sequence[str]
) -> Iterator[_Row]:
    runs: set[Path] = set()
    children = subfolders(root, runs)
    parts = split_folders(
        root, children, notices, lambda folder: bool(texts_below(folder, set())[0])
    )
    if parts is not None:
        notices += left_beside(
            root,
            list(parts.values()),
            children,
            lambda child: texts_below(child, runs)[0],
            is_text,
            "texts",
        )
    for split, part in (parts or {TRAIN: root}).items():
        notices += loose_in_words(part, is_text, "texts")
        folders = class_folders(part, runs, known, notices)
        for label, folder in ((name, one) for name, every in folders.items() for one in every):
            try:
                source = find_texts(folder, runs=runs)
            except DataError as error:
                _note(faults, str(folder), str(error))
                continue
            for document in source.read(faults):
                if document.text.strip():
                    name = f"{folder.relative_to(root)}/{document.name}"
                    yield _Row(text=document.text, label=label, name=name, split=split)
    notices += run_notices(runs)


def read_texts(files: Sequence[Path]) -> tuple[list[tuple[str, str]], list[Fault], tuple[str, ...]]:
    """Returns names and texts of files, of the files in folders, and of the rows of tables; what
    could not be read; and notices of folders that were left out.

    Raises:
        UsageError: a file does not exist, or is a run's folder.
    """
    found: list[tuple[str, str]] = []
    faults: list[Fault] = []
    runs: set[Path] = set()
    for file in files:
        check_exists(file, "A file to predict must exist")
        source, folder = find_texts(file, runs=runs), file if file.is_dir() else file.parent
        found += [(str(folder / document.name), document.text) for document in source.read(faults)]
    return found, faults, run_notices(runs)


def _note(faults: list[Fault], path: str, reason: str) -> None:
    faults.append(Fault(len(faults), path, reason))
