"""Reads the column of text out of tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from volano.data.sources.csv_rows import OnFault
from volano.data.sources.tables import TEXT_COLUMNS, find_column, read_rows, with_columns


def read_column(path: Path, *, on_fault: OnFault) -> Iterator[tuple[int, str]]:
    """Yields numbers of lines (of rows, in Parquet) and texts of a table's column of text.

    Raises:
        DataError: there is no such column, or the file is not such a table.
        MissingExtraError: the file is Parquet, and pyarrow is missing.
    """

    def find(row: dict[str, Any]) -> str:
        return find_column(row, TEXT_COLUMNS, path, "text")

    rows = read_rows(path, on_fault=on_fault)
    for number, row, name in with_columns(rows, find, path, on_fault):
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
