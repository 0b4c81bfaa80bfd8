"""Reads columns of text out of tables: JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from volano.errors import DataError, MissingExtraError

TABLE_SUFFIXES = frozenset({".jsonl", ".ndjson", ".csv", ".parquet"})
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
LABEL_COLUMNS = ("label", "class", "target", "category")
_ROWS_AT_ONCE = 1024
_REPLACEMENT = "\ufffd"

# Called for a row that cannot be read, or only in part: (place, reason).
OnFault = Callable[[str, str], None]


def read_column(path: Path, column: str | None, *, on_fault: OnFault) -> Iterator[tuple[int, str]]:
    """Yields row numbers (from 1) and texts of a table's column of text.

    Raises:
        DataError: there is no such column, or the file is not such a table.
        MissingExtraError: the file is Parquet, and pyarrow is missing.
    """
    names = TEXT_COLUMNS if column is None else (column,)
    for number, row in read_rows(path, on_fault=on_fault):
        name = find_column(row, names, path, "text")
        text = row[name]
        if isinstance(text, str) and text:
            whole = whole_characters(text)
            if whole != text:
                on_fault(f"{path}:{number}", "half a character of UTF-16 was replaced by ?")
            yield number, whole
        elif text not in (None, ""):
            on_fault(f"{path}:{number}", f"{name} is {type(text).__name__}, not text")


def whole_characters(text: str) -> str:
    """Returns the text without halves of UTF-16 pairs, which JSON may hold and no encoding can
    write; they become ``?``."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def read_rows(path: Path, *, on_fault: OnFault) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields row numbers (from 1) and rows of a .jsonl, .csv or .parquet file.

    Raises:
        DataError: the file is not such a table.
        MissingExtraError: the file is Parquet, and pyarrow is missing.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(path)
        elif suffix == ".csv":
            yield from _csv_rows(path, on_fault)
        else:
            yield from _json_rows(path, on_fault)
    except OSError as error:
        raise DataError(
            "A table must be readable", got=f"{path}: {error.strerror or error}"
        ) from error


def find_column(row: dict[str, Any], names: tuple[str, ...], path: Path, what: str) -> str:
    """Returns the first of ``names`` that the row has, ignoring case.

    Raises:
        DataError: the row has none of them.
    """
    by_name = {str(name).strip().lower(): name for name in row if name is not None}
    for name in names:
        if name.lower() in by_name:
            return by_name[name.lower()]
    raise DataError(
        f"A table must have a column of {what}, named {' or '.join(names)}",
        got=f"{path} with {', '.join(map(str, row)) or 'no columns'}",
        remedy="Rename the column",
    )


def _json_rows(path: Path, on_fault: OnFault) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            whole, num_blemishes = _mended(line)
            try:
                row = json.loads(whole)
            except ValueError as error:
                on_fault(f"{path}:{number}", f"not JSON: {error}")
                continue
            if num_blemishes:
                on_fault(f"{path}:{number}", _told(num_blemishes))
            if isinstance(row, dict):
                yield number, row
            else:
                on_fault(f"{path}:{number}", f"a JSON {type(row).__name__}, not an object")


def _mended(line: str) -> tuple[str, int]:
    """Returns a line read with ``surrogateescape``, with U+FFFD for what could not be decoded, and
    the number of such places."""
    if line.isascii():
        return line, 0
    whole = line.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
    return whole, whole.count(_REPLACEMENT) - line.count(_REPLACEMENT)


def _told(num_blemishes: int) -> str:
    return f"{num_blemishes:,} undecodable places were read as U+FFFD"


def _csv_rows(path: Path, on_fault: OnFault) -> Iterator[tuple[int, dict[str, Any]]]:
    num_blemishes = 0

    def mended(lines: Iterable[str]) -> Iterator[str]:
        nonlocal num_blemishes
        for line in lines:
            whole, count = _mended(line)
            num_blemishes += count
            yield whole

    # The csv module limits a field to 128 kB to save memory; a text may be longer.
    old = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            for number, row in enumerate(csv.DictReader(mended(file)), start=1):
                if num_blemishes:
                    on_fault(f"{path}:{number}", _told(num_blemishes))
                    num_blemishes = 0
                yield number, row
    except csv.Error as error:
        raise DataError("A .csv file must be a table", got=f"{path}: {error}") from error
    finally:
        csv.field_size_limit(old)


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files are read with pyarrow",
            got="not installed",
            remedy="pip install 'volano[data]'",
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as error:
        raise DataError(
            "A .parquet file must be a Parquet table", got=f"{path}: {error}"
        ) from error
