"""Reads tables, for pictures as for texts: CSV, JSON lines and Parquet; which column is meant, what
a row's split and label are."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from volano.bounded_json import parse_json
from volano.data.sources.csv_rows import OnFault, csv_rows, mended, open_text, undecodable
from volano.data.sources.split_record import TEST, TRAIN, VALID
from volano.errors import DataError, needs_package

TABLE_SUFFIXES = frozenset({".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"})
TEXT_COLUMNS = (
    "text",
    "content",
    "body",
    "document",
    "sentence",
    "description",
    "review",
    "message",
)
PATH_COLUMNS = ("path", "file", "filename", "image", "image_path")
LABEL_COLUMNS = (
    "label", "class", "target", "category", "labels", "classes", "targets", "categories", "tags"
)  # fmt: skip
_SPLIT_COLUMNS = ("split", "subset")
_IS_IN_SPLIT = {"is_test": TEST, "is_valid": VALID}
_KNOWN = {*TEXT_COLUMNS, *PATH_COLUMNS, *LABEL_COLUMNS, *_SPLIT_COLUMNS, *_IS_IN_SPLIT}
_SPLITS = {
    **dict.fromkeys(("train", "training", "trainset", "train_set", "training_set"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "devel", "development"), VALID),
    **dict.fromkeys(("val_set", "valid_set", "validation_set", "dev_set"), VALID),
    **dict.fromkeys(("test", "testing", "testset", "test_set", "testing_set"), TEST),
}
_ANSWERS = {"1": "true", "0": "false"}
_YES = frozenset({"true", "1", "1.0", "yes", "y", "t"})
_NO = frozenset({"false", "0", "0.0", "no", "n", "f", "", "nan", "none", "null"})
# Characters that nobody sees, and that no blank is: marks of byte order, joiners.
_UNSEEN = "\ufeff\u200b\u2060"
NO_LABELS = frozenset({"", "nan", "null", "<na>"})
_SEPARATORS = "|;"
_ONE_IN_A_LIST = re.compile(r"\s*\[\s*(?:'([^',]*)'|\"([^\",]*)\"|(-?\d+))\s*\]\s*")
# What could not be decoded, and halves of UTF-16 pairs, which no encoding can write.
_HALF = re.compile("[\ufffd\ud800-\udfff]")
_ROWS_AT_ONCE = 1024
_Columns = TypeVar("_Columns")


def split_named(name: str) -> str | None:
    """Returns the split (train, valid or test) that a folder or a cell names, or None."""
    return _SPLITS.get(re.sub(r"[\s-]+", "_", name.strip().lower()))


def check_has_train(splits: Iterable[str], root: Path) -> None:
    """Raises DataError if a folder has both a validation and a test folder, and none to train
    on."""
    if set(splits) == {VALID, TEST}:
        raise DataError(
            "A folder with a validation and a test set must have one to train on",
            got=f"{root} without train/",
            remedy="Name the folder that is to be read itself, or rename the one to train on",
        )


def split_of_row(row: dict[str, Any], place: str) -> str:
    """Returns the split of a table's row, by a column ``split``, ``subset``, ``is_test`` or
    ``is_valid``; a row without one is trained on.

    Raises:
        DataError: it names no split.
    """
    texts = {str(name).strip().lower(): str(value).strip() for name, value in row.items()
             if value is not None}  # fmt: skip
    cells = {name: text for name, text in texts.items() if text.lower() not in NO_LABELS}
    for name in _SPLIT_COLUMNS:
        if cells.get(name):
            split = split_named(cells[name])
            if split is None:
                raise DataError(
                    "A table's split must be train, val or test", got=f"{cells[name]!r} in {place}",
                    remedy="Rename it, or remove the column to have a test set split off",
                )  # fmt: skip
            return split
    for name, split in _IS_IN_SPLIT.items():
        answer = cells.get(name, "").lower()
        if answer in _YES:
            return split
        if answer not in _NO:
            raise DataError(
                f"A table's {name} must be yes or no (true, 1; false, 0)",
                got=f"{answer!r} in {place}",
                remedy="Write one of them, or remove the column to have a test set split off",
            )
    return TRAIN


def labels_of(
    cells: Sequence[Any], numbers: Sequence[int], path: Path, known: Sequence[str] = ()
) -> tuple[list[str], tuple[str, ...]]:
    """Returns the label of each row of a table, and notices. Blanks around it do not count; in a
    column of numbers 1, 1.0 and True are one label.

    Args:
        cells: what stands in the column.
        numbers: the numbers of the rows.
        path: path of the table.
        known: a run's labels, which stay as the run writes them.

    Raises:
        DataError: a row has no label, or several.
    """
    texts = [
        _text_of(cell, f"{path}:{number}") for cell, number in zip(cells, numbers, strict=True)
    ]
    missing = [n for text, n in zip(texts, numbers, strict=True) if text.lower() in NO_LABELS]
    if missing:
        raise DataError(
            "Every row of a table must have a label",
            got=f"{len(missing)} without, the first in line {missing[0]} of {path}",
            remedy="Fill in or remove these rows",
        )
    check_decoded(texts, numbers, path)
    plain = {text: _plain_number(text) for text in set(texts)}
    if all(value is not None for value in plain.values()):
        are_answers = all(text.lower() in _ANSWERS.values() for text in plain)
        texts = [_label_of(text, plain[text] or text, are_answers, known) for text in texts]
    return texts, (*_several(texts), *(() if known else alike_in_words(texts)))


def alike_in_words(names: Iterable[str]) -> tuple[str, ...]:
    """Returns a notice if classes differ in capitals alone, which may be meant as one."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), set()).add(name)
    alike = sorted(", ".join(sorted(group)) for group in groups.values() if len(group) > 1)
    return (f"classes that differ in capitals alone: {'; '.join(alike[:3])}",) if alike else ()


def _label_of(text: str, plain: str, are_answers: bool, known: Sequence[str]) -> str:
    """Returns the label of a cell in a column of numbers or answers, as a run writes it if it knows
    it in any of the ways."""
    answer = text.capitalize() if are_answers else _ANSWERS.get(plain, plain).capitalize()
    usual = answer if are_answers else plain
    return next((label for label in (text, usual, plain, answer) if label in known), usual)


def check_decoded(texts: Sequence[str], numbers: Sequence[int], path: Path) -> None:
    """Raises DataError if a label holds what could not be decoded."""
    damaged = [n for text, n in zip(texts, numbers, strict=True) if _HALF.search(text)]
    if damaged:
        raise DataError(
            "Labels must be text in UTF-8 or UTF-16",
            got=f"{len(damaged)} that are not, the first in line {damaged[0]} of {path}",
            remedy="Save the table as UTF-8",
        )


def _text_of(cell: Any, place: str) -> str:
    items = items_of_list(cell)
    if items is not None:
        if len(items) > 1:
            raise DataError(
                "A row of a table must have one label",
                got=f"{len(items)} in {place}: {', '.join(map(str, items))[:80]}",
                remedy="Keep one; several can be told of images and texts, by `target` labels",
            )
        cell = items[0] if items else None
    return text_of_cell(cell, f" in {place}")


def text_of_cell(cell: Any, place: str = "") -> str:
    """Returns what stands in a cell as a text, without blanks around it.

    Raises:
        DataError: it is an object or a list; ``place`` in words.
    """
    if isinstance(cell, bytes):
        cell = cell.decode(errors="replace")
    if isinstance(cell, dict | list | tuple):
        raise DataError(
            "A label must be a text, a number, or true or false",
            got=f"{type(cell).__name__}{place}: {str(cell)[:80]}",
            remedy="Write a text in its place",
        )
    is_none = cell is None or (isinstance(cell, float) and math.isnan(cell))
    # One letter may be written in two ways, which look alike.
    return "" if is_none else unicodedata.normalize("NFC", str(cell).strip().strip(_UNSEEN).strip())


def items_of_list(cell: Any) -> list[Any] | None:
    """Returns what a cell that is a list holds, or one that is written as one of several; None of
    another cell."""
    if isinstance(cell, str) and re.fullmatch(r"\s*\[.*,.*\]\s*", cell):
        items = (item.strip() for item in cell.strip()[1:-1].split(","))
        return [re.sub(r"^(['\"])(.*)\1$", r"\2", item) for item in items]
    if isinstance(cell, str) and (alone := _ONE_IN_A_LIST.fullmatch(cell)):
        return [next(part for part in alone.groups() if part is not None)]
    return list(cell) if isinstance(cell, list | tuple) else None


def _plain_number(text: str) -> str | None:
    """Returns a number as the shortest text that means it, None for what is no number."""
    if text.lower() in ("true", "false"):
        return str(int(text.lower() == "true"))
    if not re.fullmatch(r"[+-]?\d+(\.\d*)?", text, flags=re.ASCII):
        return None
    plain = re.sub(r"\.0*$", "", text.removeprefix("+"))
    return "0" if plain == "-0" else plain


def _several(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns a notice if cells look like several labels: parts of them stand in others too."""
    separator = several_by(texts) or ("," if _share_parts({*texts}, ",") else None)
    if separator is None:
        return ()
    joined = min(cell for cell in texts if separator in cell)
    return (
        f"labels such as {joined!r} look like several with {separator!r} between them: "
        "each combination is a class of its own",
    )


def several_by(texts: Sequence[str], *, is_asked: bool = False) -> str | None:
    """Returns the separator of cells that hold several labels; None of cells that do not.

    Bars and semicolons are one if parts of cells stand in other cells too. A comma, which stands
    within names as well, is one if each part of some cell stands alone in another.

    Args:
        texts: the cells.
        is_asked: whether several labels are asked for, so that any separator counts.
    """
    cells = set(texts)
    for separator in _SEPARATORS:
        if _share_parts(cells, separator):
            return separator
    with_commas = [cell for cell in cells if "," in cell]
    if any({part.strip() for part in cell.split(",")} <= cells for cell in with_commas):
        return ","
    if is_asked:
        asked = (*_SEPARATORS, ",")
        return next((one for one in asked if any(one in cell for cell in cells)), None)
    return None


def _share_parts(cells: set[str], separator: str) -> bool:
    parts = Counter(part.strip() for cell in cells for part in {*cell.split(separator)})
    joined = (cell for cell in cells if separator in cell)
    return any(parts[part.strip()] > 1 for cell in joined for part in cell.split(separator))


def read_rows(
    path: Path, *, on_fault: OnFault, names: Iterable[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields numbers (of lines, or of the rows of a .parquet file, from 1) and rows of a table.

    Args:
        path: path of a .jsonl, .csv, .tsv or .parquet file.
        on_fault: called for a row that cannot be read, or only in part.
        names: columns that will be asked for, beside the usual ones.

    Raises:
        DataError: the file is not such a table.
        MissingExtraError: the file is Parquet, and pyarrow is missing.
    """
    suffix = path.suffix.lower()
    try:
        known = {name.lower() for name in _KNOWN | set(names)}
        if suffix == ".parquet":
            yield from _parquet_rows(path, known)
        elif suffix in (".csv", ".tsv"):
            yield from csv_rows(path, known, on_fault=on_fault)
        else:
            yield from _json_rows(path, on_fault)
    except OSError as error:
        raise DataError(
            "A table must be readable", got=f"{path}: {error.strerror or error}"
        ) from error


def with_columns(
    rows: Iterable[tuple[int, dict[str, Any]]],
    find: Callable[[dict[str, Any]], _Columns],
    path: Path,
    on_fault: OnFault,
) -> Iterator[tuple[int, dict[str, Any], _Columns]]:
    """Yields the rows of a table with what ``find`` finds in each: the names of its columns. Lines
    of JSON may have other names than the first: one that lacks a column is a fault, and loses no
    row behind it.

    Raises:
        DataError: as ``find`` for the first row, if no row has them, or none of the first thousand.
    """
    lacking: list[tuple[int, str]] = []
    first, has_any = DataError("A table must have columns"), False
    for number, row in rows:
        try:
            found = find(row)
        except DataError as error:
            first = first if lacking else error
            lacking.append((number, error.rule))
            if not has_any and len(lacking) == _ROWS_AT_ONCE:
                break
            continue
        has_any = True
        yield number, row, found
    if lacking and not has_any:
        raise first
    for number, reason in lacking:
        on_fault(f"{path}:{number}", reason)


def find_column(
    row: dict[str, Any], names: tuple[str, ...], path: Path, what: str, *, hint: str = ""
) -> str:
    """Returns the first of ``names`` that the row has, ignoring case; ``hint``: what else helps
    than another name.

    Raises:
        DataError: the row has none of them.
    """
    by_name = {str(name).strip().lower(): name for name in row if name is not None}
    for name in names:
        if name.lower() in by_name:
            return by_name[name.lower()]
    raise DataError(
        f"A table must have a column of {what}, named {_one_of(names)}",
        got=f"{path} with {', '.join(map(str, row)) or 'no columns'}",
        remedy=f"Rename the column{hint}",
    )


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _json_rows(path: Path, on_fault: OnFault) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            whole, num_blemishes = mended(line)
            try:
                row = parse_json(whole)
            except ValueError as error:
                on_fault(f"{path}:{number}", f"not JSON: {error}")
                continue
            if num_blemishes:
                on_fault(f"{path}:{number}", undecodable(num_blemishes))
            if isinstance(row, dict):
                yield number, row
            else:
                on_fault(f"{path}:{number}", f"a JSON {type(row).__name__}, not an object")


def _parquet_rows(path: Path, known: Collection[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows, with the values of known columns: a value of another may be of a type that
    Python cannot have."""
    with needs_package("Parquet files are read with pyarrow", "'volano[data]'"):
        import pyarrow
        import pyarrow.parquet
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [name for name in names if name.strip().lower() in known]
            others = dict.fromkeys(name for name in names if name not in columns)
            if not columns and file.metadata.num_rows:
                yield 1, others
                return
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {**row, **others}
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(
            "A .parquet file must be a Parquet table", got=f"{path}: {error}"
        ) from error
