"""Reads what is to be predicted of each row of a table: one of several classes, any number of
labels, or numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from volano.data.sources.tables import (
    LABEL_COLUMNS,
    NO_LABELS,
    check_decoded,
    find_column,
    items_of_list,
    several_by,
    text_of_cell,
)
from volano.errors import DataError, UsageError

CLASSES, LABELS, NUMBERS = "classes", "labels", "numbers"
# A column of so many different numbers, some of them once, holds no classes: as such it would be
# refused.
_MOST_CLASSES_OF_NUMBERS = 20
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", flags=re.ASCII)
_DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)", flags=re.ASCII)
_THOUSANDS = re.compile(r"(?<=\d)[,' \u00a0\u202f](?=\d{3}(?!\d))")
_ANSWERS = {"1": 1, "0": 0, "true": 1, "false": 0, "yes": 1, "no": 0}
_BRIEFLY = 40


@dataclass(frozen=True, kw_only=True)
class TargetFormat:
    """The way in which targets are read.

    Attributes:
        kind: ``CLASSES``, ``LABELS`` or ``NUMBERS``; None finds it out by what the table holds.
        columns: the columns of a table that hold them; none: the usual ones are looked for.
        names: the labels, or the names of the numbers, of a run; None takes the table's own.
        leaves_out_unknown: whether labels that are none of ``names`` are left out and said.
    """

    kind: str | None = None
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    leaves_out_unknown: bool = False

    def check_no_table(self, what: str) -> None:
        """Raises UsageError if a source that is no table cannot say what is asked for."""
        if self.kind in (None, CLASSES) and (not self.columns or self.names is not None):
            return
        option = "target_columns" if self.columns else "target"
        raise UsageError(
            f"`{option}` must come with a table, which alone has columns",
            got=f"{', '.join(self.columns) or self.kind} with {what}",
            remedy="Name the examples in a .csv, .jsonl or .parquet table",
        )

    def columns_of(self, row: Mapping[str, Any], path: Path) -> tuple[str, ...]:
        """Returns the columns of a table that hold targets.

        Raises:
            DataError: it has none of them.
        """
        if not self.columns:
            hint = ", or name it by `target_columns`"
            return (find_column(dict(row), LABEL_COLUMNS, path, "labels", hint=hint),)
        return tuple(find_column(dict(row), (name,), path, "targets") for name in self.columns)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The targets of the rows of a table.

    Attributes:
        kind: ``LABELS`` or ``NUMBERS``; or ``CLASSES``, whose names and values are not read here.
        names: the labels, or the names of the numbers.
        values: labels as 0 and 1, uint8 [N, labels]; numbers, fp64 [N, numbers].
        notices: what was found out, in words.
    """

    kind: str
    names: tuple[str, ...] = ()
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)), repr=False)
    notices: tuple[str, ...] = ()


def read_targets(
    columns: Mapping[str, Sequence[Any]], numbers: Sequence[int], path: Path, wanted: TargetFormat
) -> Targets:
    """Returns the targets of a table.

    Args:
        columns: the cells of the columns that hold them.
        numbers: the numbers of the rows.
        path: path of the table.
        wanted: how they are read.

    Raises:
        DataError: a cell cannot be such a target, or there is nothing to tell apart.
        UsageError: classes of several columns are asked for.
    """
    kind, said = (wanted.kind, ()) if wanted.kind else _kind_of(columns)
    if kind == NUMBERS:
        names, values = tuple(columns), _numbers(columns, numbers, path)
        if wanted.names is not None:
            names = wanted.names
        else:
            _check_differ(names, values, path)
        return Targets(kind=NUMBERS, names=names, values=values, notices=said)
    if kind == LABELS:
        found = _labels(columns, numbers, path, wanted)
        return Targets(
            kind=LABELS, names=found.names, values=found.values, notices=(*said, *found.notices)
        )
    if len(columns) > 1:
        raise UsageError(
            "`target` classes must come with one column", got=", ".join(columns),
            remedy="Several columns hold labels or numbers",
        )  # fmt: skip
    return Targets(kind=CLASSES, notices=said)


def class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the class names sorted and without repetition; numbers in the order of numbers."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() for name in unique):
        # Not by `int`, which refuses thousands of digits.
        numbers = {name: name.lstrip("0") for name in unique}
        return tuple(sorted(unique, key=lambda name: (len(numbers[name]), numbers[name], name)))
    return tuple(sorted(unique))


def target_texts(kind: str, names: Sequence[str], values: Any) -> list[str]:
    """Returns the targets of examples as texts, by which a changed one is known.

    Args:
        kind: ``CLASSES``, ``LABELS`` or ``NUMBERS``.
        names: the classes or labels, or the names of the numbers.
        values: as ``Targets`` has them; classes int64 [N].
    """
    if kind == CLASSES:
        return [names[int(number)] if names else "" for number in values.tolist()]
    if kind == LABELS:
        return [";".join(n for n, has in zip(names, row, strict=True) if has) for row in values]
    return [", ".join(f"{number:.10g}" for number in row) for row in values.tolist()]


def check_trained(kind: str, names: Sequence[str], trained: Any, what: str) -> None:
    """Raises DataError if a class or a label is only among examples that are not trained on.

    Args:
        kind: ``CLASSES``, ``LABELS`` or ``NUMBERS``.
        names: the classes or labels.
        trained: the targets of the training examples.
        what: what the examples are, in words.
    """
    if kind == NUMBERS:
        return
    values = np.asarray(trained)
    counts = np.bincount(values, minlength=len(names)) if kind == CLASSES else values.sum(0)
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        word = "class" if kind == CLASSES else "label"
        raise DataError(
            f"Every {word} must have readable {what} to train on",
            got=f"none of {', '.join(empty[:5])}",
        )


# ---- which kind


def _kind_of(columns: Mapping[str, Sequence[Any]]) -> tuple[str, tuple[str, ...]]:
    """Returns the kind of targets where what the columns hold is plain, and what is said of it."""
    if len(columns) > 1:
        texts = {text for cells in columns.values() for text in _texts(cells)}
        are_numbers = texts and all(map(_NUMBER.fullmatch, texts))
        if are_numbers and not {*map(_answer, texts)} <= {"0", "1"}:
            return NUMBERS, ()
        return LABELS, ()
    ((name, cells),) = columns.items()
    if any(len(items_of_list(cell) or ()) > 1 for cell in cells):
        return LABELS, (f"column {name} holds lists: several labels an example (target=labels)",)
    texts = _texts(cells)
    separator = several_by(texts)
    if separator is not None:
        joined = min(text for text in texts if separator in text)
        return LABELS, (
            f"column {name} holds several labels with {separator!r} between them, such as "
            f"{joined[:_BRIEFLY]!r} (target=labels; with `target` classes each combination is a "
            "class of its own)",
        )
    return _kind_of_numbers(name, texts)


def _kind_of_numbers(name: str, texts: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    # Whoever is asked to predict them is told how they are written.
    plain = [_DECIMAL_COMMA.sub(r"\1.\2", _THOUSANDS.sub("", text)) for text in texts]
    if not plain or not all(map(_NUMBER.fullmatch, plain)):
        return CLASSES, ()
    counts = Counter(map(float, plain))
    if len(counts) <= _MOST_CLASSES_OF_NUMBERS:
        return CLASSES, ()
    if min(counts.values()) == 1:
        return NUMBERS, (
            f"column {name} holds {len(counts):,} different numbers, some of them once: the number "
            "is predicted (target=numbers)",
        )
    return CLASSES, (
        f"column {name} holds {len(counts):,} different numbers: each is a class of its own; with "
        "`target` numbers the number is predicted",
    )


def _texts(cells: Sequence[Any]) -> list[str]:
    """Returns the cells of one value each as texts, without the empty ones."""
    texts = [text_of_cell(cell) for cell in cells if not isinstance(cell, list | tuple)]
    return [text for text in texts if text.lower() not in NO_LABELS]


def _answer(text: str) -> str:
    """Returns a cell as an answer is written: tables write 1.0 for 1 where cells are blank."""
    return re.sub(r"^([01])\.0*$", r"\1", text.lower())


# ---- numbers


def _numbers(
    columns: Mapping[str, Sequence[Any]], numbers: Sequence[int], path: Path
) -> np.ndarray:
    """Returns the numbers fp64 [N, columns].

    Raises:
        DataError: a cell holds none.
    """
    found = np.full((len(numbers), len(columns)), np.nan)
    for place, (name, cells) in enumerate(columns.items()):
        found[:, place] = [_number(cell) for cell in cells]
        bad = np.flatnonzero(~np.isfinite(found[:, place]))
        if len(bad):
            cell, line = cells[bad[0]], numbers[bad[0]]
            raise DataError(
                "Every row of a table must have a finite number to predict",
                got=f"{len(bad)} without, the first in line {line} of {path}: column {name} holds "
                f"{text_of_cell(cell)[:_BRIEFLY]!r}",
                remedy="Fill in or remove these rows; a number is written as 1234.5, with a point "
                "and without separators of thousands",
            )
    return found


def _number(cell: Any) -> float:
    text = text_of_cell(cell)
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def _check_differ(names: Sequence[str], values: np.ndarray, path: Path) -> None:
    for name, column in zip(names, values.T, strict=True):
        if len(column) == 0 or column.min() == column.max():
            raise DataError(
                "Numbers to predict must differ",
                got=f"{f'only {column[0]:g}' if len(column) else 'none'} in column {name} of "
                f"{path}",
            )


# ---- labels


def _labels(
    columns: Mapping[str, Sequence[Any]], numbers: Sequence[int], path: Path, wanted: TargetFormat
) -> Targets:
    """Returns the labels: columns of 0 and 1 are labels themselves, the cells of others hold
    them."""
    texts = {_answer(text) for cells in columns.values() for text in _texts(cells)}
    blanks: tuple[str, ...] = ()
    if texts and texts <= _ANSWERS.keys() and (len(columns) > 1 or wanted.columns):
        rows = [
            [name for name, cell in zip(columns, cells, strict=True)
             if _ANSWERS.get(_answer(text_of_cell(cell)))]
            for cells in zip(*columns.values(), strict=True)
        ]  # fmt: skip
        own = tuple(columns)
        num_blank = sum(len(cells) - len(_texts(cells)) for cells in columns.values())
        if num_blank:
            blanks = (f"{num_blank:,} blank cells of {', '.join(columns)} count as no",)
    else:
        parted = [_parted(cells, wanted.names or ()) for cells in columns.values()]
        rows = [[label for one in labels for label in one] for labels in zip(*parted, strict=True)]
        check_decoded([";".join(row) for row in rows], numbers, path)
        own = class_names(label for row in rows for label in row)
    names = own if wanted.names is None else wanted.names
    said = (*blanks, *_unknown(own, wanted, path))
    place_of = {name: place for place, name in enumerate(names)}
    values = np.zeros((len(rows), len(names)), dtype=np.uint8)
    for row, labels in enumerate(rows):
        values[row, [place_of[label] for label in labels if label in place_of]] = 1
    if wanted.names is None and (values == values[:1]).all():
        raise DataError(
            "Examples must differ in their labels",
            got=f"{', '.join(names[:5]) or 'no label'} in every row of {path}",
            remedy="Add examples with others, or with none",
        )
    return Targets(kind=LABELS, names=names, values=values, notices=said)


def _parted(cells: Sequence[Any], known: Sequence[str]) -> list[list[str]]:
    """Returns the labels in each cell of a column: of a list, or between separators. A cell that is
    a label of the run is that one."""
    separator = several_by([text for text in _texts(cells) if text not in known], is_asked=True)
    parted = []
    for cell in cells:
        items = items_of_list(cell)
        if items is None:
            text = text_of_cell(cell)
            items = text.split(separator) if separator and text not in known else [text]
        labels = (text_of_cell(item) for item in items)
        parted.append([label for label in labels if label.lower() not in NO_LABELS])
    return parted


def _unknown(own: Sequence[str], wanted: TargetFormat, path: Path) -> tuple[str, ...]:
    unknown = [name for name in own if name not in (own if wanted.names is None else wanted.names)]
    if not unknown:
        return ()
    if wanted.leaves_out_unknown:
        return (f"labels that the run does not know are left out: {', '.join(unknown[:5])}",)
    assert wanted.names is not None
    raise DataError(
        "Examples to evaluate on must have the run's labels",
        got=f"also {', '.join(unknown[:5])} in {path}",
        remedy=f"The run knows {', '.join(wanted.names[:10])}",
    )
