"""The report on a classifier's scores: the confusion matrix, classes, the commonest mistakes, the
hardest examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from volano.bounded_json import parse_json
from volano.record.files import read_bytes
from volano.record.format import figure_text, share_text, short
from volano.record.json_values import mapping, number, sequence
from volano.record.read_run import RunRecord
from volano.report.media import Media, cut, read_media

# A table of more classes than this cannot be read; a map of coloured squares still can.
_MOST_IN_TABLE = 24
_MOST_ROWS = 40
_NUM_PAIRS = 8


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of ``count`` examples; ``strength`` 0 to 1 is how strongly it is coloured, ``kind`` in
    which colour."""

    count: int
    strength: float
    kind: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class and its figures in words; ``percent`` is the length of the bar, of F1."""

    name: str
    num_examples: str
    precision: str
    recall: str
    f1: str
    percent: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair of classes: ``count`` of the ``num_true`` examples of class ``true`` were taken for
    ``predicted``."""

    true: str
    predicted: str
    count: int
    num_true: int


@dataclass(frozen=True, kw_only=True)
class ClassificationFigures:
    """The figures that the section shows. ``table`` is empty for many classes, whose ``map`` is a
    list of squares (column, row, kind, strength) in units of a class."""

    classes: tuple[str, ...]
    num_examples: str
    table: tuple[tuple[Cell, ...], ...]
    map: tuple[tuple[int, int, str, float], ...]
    rows: tuple[ClassRow, ...]
    num_left_out: int
    pairs: tuple[Pair, ...]
    candidates: tuple[tuple[str, str, float, bool], ...]
    alt: str


@dataclass(frozen=True, kw_only=True)
class Hardest:
    """An example with a high loss: its picture, name, true and predicted class."""

    picture: Media
    name: str
    true: str
    predicted: str
    probability: str


def classification_of(record: RunRecord) -> ClassificationFigures | None:
    """Returns the section of a classifier, or None if there are no scores of one.

    Raises:
        ValueError: the scores contradict themselves.
    """
    scores = record.scores
    if "confusion" not in scores:
        return None
    classes = tuple(str(name) for name in sequence(scores.get("classes")))
    counts = np.asarray(scores["confusion"], dtype=np.int64)
    if not classes or counts.shape != (len(classes), len(classes)):
        raise ValueError(
            f"eval-test.json: {len(classes)} classes and a confusion matrix of shape {counts.shape}"
        )
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    is_small = len(classes) <= _MOST_IN_TABLE
    rows, num_left_out = _class_rows(record)
    return ClassificationFigures(
        classes=classes,
        num_examples=f"{int(counts.sum()):,}",
        table=_table(counts, shares, classes) if is_small else (),
        map=() if is_small else _map(counts, shares),
        rows=rows,
        num_left_out=num_left_out,
        pairs=_pairs(counts, classes),
        candidates=_candidates(record),
        alt=_describe(counts, classes),
    )


def hardest_of(record: RunRecord) -> tuple[list[Hardest], Media | None]:
    """Returns the test images with the highest loss, one by one if ``top-losses.json`` has their
    places on the sheet; else the sheet itself, if it exists.

    Raises:
        ValueError: the sheet or its list is damaged.
        OSError: one of them cannot be read.
    """
    sheet, table = record.path / "top-losses.png", record.path / "top-losses.json"
    if not sheet.is_file():
        return [], None
    if not table.is_file():
        return [], read_media(sheet)
    items = [
        mapping(item) for item in sequence(mapping(parse_json(read_bytes(table))).get("items"))
    ]
    boxes = [tuple(int(edge) for edge in item["box"]) for item in items]
    return [
        Hardest(
            picture=picture,
            name=str(item.get("name", "")),
            true=str(item.get("true")),
            predicted=str(item.get("predicted")),
            probability=""
            if item.get("probability") is None
            else share_text(item["probability"], digits=0),
        )
        for item, picture in zip(items, cut(sheet, boxes), strict=True)  # pyright: ignore[reportArgumentType]
    ], None


def _strength(share: float) -> float:
    # The square root makes a mistake of one in a hundred visible.
    return round(math.sqrt(share), 3)


def _table(counts: Any, shares: Any, classes: tuple[str, ...]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(
        tuple(
            Cell(
                count=int(counts[row, column]),
                strength=_strength(shares[row, column]),
                kind="right" if row == column else "wrong",
                alt=f"{counts[row, column]} of {classes[row]} taken for {classes[column]}",
            )
            for column in range(len(classes))
        )
        for row in range(len(classes))
    )


def _map(counts: Any, shares: Any) -> tuple[tuple[int, int, str, float], ...]:
    return tuple(
        (
            int(column),
            int(row),
            "right" if row == column else "wrong",
            max(0.15, _strength(shares[row, column])),
        )
        for row, column in zip(*np.nonzero(counts), strict=True)
    )


def _pairs(counts: Any, classes: tuple[str, ...]) -> tuple[Pair, ...]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_PAIRS]
    places = [divmod(int(place), len(classes)) for place in order]
    return tuple(
        Pair(
            true=classes[row],
            predicted=classes[column],
            count=int(wrong[row, column]),
            num_true=int(counts[row].sum()),
        )
        for row, column in places
        if wrong[row, column]
    )


def _class_rows(record: RunRecord) -> tuple[tuple[ClassRow, ...], int]:
    """Returns the rows in the order of the classes, or the hardest of them if there are many; and
    how many are left out."""
    kept, num_left_out = hardest_rows(record.scores.get("per_class"), "f1")
    rows = tuple(
        ClassRow(
            name=name,
            num_examples=figure_text("support", row.get("support")),
            precision=share_text(row.get("precision")),
            recall=share_text(row.get("recall")),
            f1=share_text(row.get("f1")),
            percent=round(100 * (number(row.get("f1")) or 0.0), 2),
        )
        for name, row in kept
    )
    return rows, num_left_out


def hardest_rows(per_name: Any, figure: str) -> tuple[list[tuple[str, Mapping[str, Any]]], int]:
    """Returns the rows of a table of figures by name, or the lowest by one of them if there are
    many; and how many are left out."""
    found = [(str(name), mapping(row)) for name, row in mapping(per_name).items()]
    kept = found
    if len(found) > _MOST_ROWS:
        kept = sorted(found, key=lambda pair: number(pair[1].get(figure)) or 0.0)[:_MOST_ROWS]
    return kept, len(found) - len(kept)


def _candidates(record: RunRecord) -> tuple[tuple[str, str, float, bool], ...]:
    kept = record.scores.get("kept")
    found = [
        (str(name), number(value))
        for name, value in mapping(record.scores.get("candidates")).items()
    ]
    return tuple(
        (name, figure_text("accuracy", value), round(100 * value, 2), name == kept)
        for name, value in found
        if value is not None
    )


def _describe(counts: Any, classes: tuple[str, ...]) -> str:
    right, total = int(np.trace(counts)), int(counts.sum())
    text = (
        f"Confusion matrix of {len(classes)} classes: {right:,} of {total:,} examples were "
        "recognised."
    )
    pairs = _pairs(counts, classes)
    if pairs:
        first = pairs[0]
        true, predicted = short(first.true, 40), short(first.predicted, 40)
        text += f" The commonest mistake: {first.count} of {true} taken for {predicted}."
    return text
