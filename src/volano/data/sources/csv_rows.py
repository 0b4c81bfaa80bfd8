"""Reads rows of CSV files as people write them: separators and encodings are found out, and a row
that cannot be read loses none behind it."""

from __future__ import annotations

import csv
import itertools
import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from volano.errors import DataError

# Called for a row that cannot be read, or only in part: (place, reason).
OnFault = Callable[[str, str], None]
_DELIMITERS = ",;\t|"
_STATED = re.compile(r"\"?sep=([,;\t|])[,;\t|\"\s]*", re.IGNORECASE)
_REPLACEMENT = "\ufffd"
# A field of so many lines, nearly all of which have as many fields as the header, is the work of a
# quote that is not closed.
_SWALLOWED_LINES, _SWALLOWED_SHARE = 20, 0.9
# Rows are given up after so many characters: their quote is never closed.
_MOST_CHARACTERS = 2**24


def csv_rows(
    path: Path, known: Collection[str], *, on_fault: OnFault
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the line in which each row begins (the header's is 1), and its cells by column.

    The separator is the one of comma, semicolon, tab and bar that gives the header the most columns
    named as in ``known``. A row with another number of fields than the header, or with a quote that
    is not closed, is a fault; the lines behind its first are read as rows of their own.

    Raises:
        DataError: the file is not such a table.
    """
    # The csv module limits a field to 128 kB to save memory; a text may be longer.
    old = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with open_text(path, newline="") as file:
            lines = _Lines(file)
            while (line := lines.peek()) and not line.strip():  # before the header
                next(lines)
            delimiter = _delimiter(lines.peek(), known)
            if stated := _STATED.fullmatch(lines.peek()):  # as Excel does
                delimiter = stated[1]
                next(lines)
            header = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]
            for name in sorted(known):
                if [one.lower() for one in header].count(name) > 1:
                    on_fault(f"{path}:1", f"all columns named {name} but the first")
            yield from _rows(lines, header, delimiter, path, on_fault)
    except csv.Error as error:
        raise DataError("A .csv file must be a table", got=f"{path}: {error}") from error
    finally:
        csv.field_size_limit(old)


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """Opens a table as text, in the encoding that its beginning shows; see :func:`mended`."""
    encoding = _encoding_of(path)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    return path.open(encoding=encoding, errors=errors, newline=newline)


def mended(line: str) -> tuple[str, int]:
    """Returns a line read with ``surrogateescape``, with U+FFFD for what could not be decoded, and
    the number of such places."""
    if line.isascii():
        return line, 0
    whole = line.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
    return whole, whole.count(_REPLACEMENT) - line.count(_REPLACEMENT)


def undecodable(num_places: int) -> str:
    """Puts the number of places that could not be decoded into words."""
    return f"{num_places:,} undecodable places were read as U+FFFD"


class _Lines:
    """The lines of a file, of which those of the last row can be given back.

    Attributes:
        taken: the lines of the row that is being read.
        num_blemishes: places in them that could not be decoded.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._again = iter(lines), deque[str]()
        self.taken: list[str] = []
        self.num_blemishes, self._num_read, self._size = 0, 0, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line, count = mended(self._again.popleft() if self._again else next(self._lines))
        self.taken.append(line)
        self._num_read += 1
        self.num_blemishes += count
        self._size += len(line)
        if self._size > _MOST_CHARACTERS and len(self.taken) > 1:
            raise csv.Error("a quote that is not closed")
        return line

    def peek(self) -> str:
        """Returns the next line, which stays; "" at the end."""
        if not self._again:
            self._again.extend(itertools.islice(self._lines, 1))
        return self._again[0] if self._again else ""

    def begin(self) -> None:
        """Begins a row."""
        self.taken, self.num_blemishes, self._size = [], 0, 0

    @property
    def number(self) -> int:
        """The line in which the row begins, from 1."""
        return self._num_read - len(self.taken) + 1

    def give_back(self) -> None:
        """Gives back all lines of the row but its first."""
        self._again.extendleft(reversed(self.taken[1:]))
        self._num_read -= len(self.taken) - 1
        del self.taken[1:]


def _rows(
    lines: _Lines, header: list[str], delimiter: str, path: Path, on_fault: OnFault
) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        fault = None
        row: list[str] = []
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"no row: {error}; is a quote not closed, or not doubled within quotes?"
        while len(row) > len(header) and not row[-1].strip():
            row.pop()
        place = f"{path}:{lines.number}"
        if fault is None and row and len(row) != len(header):
            fault = (
                f"{len(row)} fields where the header has {len(header)}; fields that hold the "
                "separator must be quoted"
            )
        if fault is None and _is_swallowed(lines.taken, len(header), delimiter):
            size = max(map(len, row))
            fault = f"a field of {size:,} characters over {len(lines.taken):,} lines of rows"
        if fault is not None:
            on_fault(place, fault)
            lines.give_back()
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
        elif row:
            if lines.num_blemishes:
                on_fault(place, undecodable(lines.num_blemishes))
            first = dict(zip(reversed(header), reversed(row), strict=True))
            yield lines.number, {name: first[name] for name in header}


def _is_swallowed(taken: list[str], num_columns: int, delimiter: str) -> bool:
    inner = taken[1:-1]
    if len(inner) < _SWALLOWED_LINES or num_columns < 2:
        return False
    alike = sum(line.count(delimiter) == num_columns - 1 for line in inner)
    return alike >= _SWALLOWED_SHARE * len(inner)


def _delimiter(header: str, known: Collection[str]) -> str:
    def rank(delimiter: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=delimiter), [])
        num_known = sum(name.strip().lower() in known for name in names)
        return num_known, 0 if num_known else len(names) > 1

    return max(_DELIMITERS, key=rank)  # the first of equals


def _encoding_of(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if head in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    # Without a mark: a table begins with a letter, a quote or a bracket of ASCII.
    return {1: "utf-16-le", 0: "utf-16-be"}.get(head[:2].find(0), "utf-8-sig")
