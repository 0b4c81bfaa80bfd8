"""Finds and reads text: files and folders of text and code, tables with a column of text, Python's
standard library.

A source is read again each time it is asked for, one document at a time, so that it may be larger
than memory.
"""

from __future__ import annotations

import functools
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from volano.data.feed.fetch import Fault
from volano.data.sources.folders import refuse_run, run_notices, walk
from volano.data.sources.tables import TABLE_SUFFIXES
from volano.data.sources.text.text_tables import read_column
from volano.errors import DataError, MissingExtraError
from volano.record.files import check_exists
from volano.record.format import count_text

_SUFFIXES = (
    ".txt .md .rst .tex .org .log .srt .html .htm .xml .css .json .yaml .yml .toml .ini .cfg .sql "
    ".sh .bat .py .pyi .ipynb .js .ts .jsx .tsx .java .c .h .cc .cpp .hpp .cs .go .rs .rb .php .pl "
    ".lua .r .jl .swift .kt .scala .hs .ml .el .lisp .clj .erl .ex .vim .f90 .f .pas .asm .s"
)
TEXT_SUFFIXES = frozenset(_SUFFIXES.split())
# Bytes with more undecodable places than one in so many are not text with blemishes but something
# else.
_BYTES_PER_BLEMISH = 20
_REPLACEMENT = "\ufffd"
# Folders that do not belong to the standard library itself, or hold broken text on purpose.
_NOT_LIBRARY = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text and its origin: a file's path below the source, or a row of a table."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """The texts of a source, which can be read again and again.

    Attributes:
        root: the file or folder.
        files: the files to read, in order.
        origin: the source's origin in words.
        notices: notices about what was left aside.
    """

    root: Path
    files: tuple[Path, ...]
    origin: str
    notices: tuple[str, ...] = ()

    def read(self, faults: list[Fault] | None = None) -> Iterator[Document]:
        """Yields the documents in order, empty ones left out. Documents that cannot be read, or
        only in part, are added to ``faults``; so are files in a folder that are not tables, lack
        the column, or are Parquet if pyarrow is missing.

        Raises:
            DataError: the source is one table, and it lacks the column.
            MissingExtraError: the source is one Parquet file, and pyarrow is missing.
        """
        found = [] if faults is None else faults
        for number, file in enumerate(self.files):
            name = str(file.relative_to(self.root)) if file != self.root else file.name
            if file.suffix.lower() in TABLE_SUFFIXES:
                try:
                    note = functools.partial(_note, found, number)
                    for row, text in read_column(file, on_fault=note):
                        yield Document(name=f"{name}:{row}", text=text)
                except (DataError, MissingExtraError) as error:
                    if file == self.root:
                        raise
                    _note(found, number, str(file), str(error))
                continue
            text, reason = _read_file(file)
            if reason is not None:
                _note(found, number, str(file), reason)
            if text:
                yield Document(name=name, text=text)


def find_texts(path: Path | None, *, runs: set[Path] | None = None) -> TextSource:
    """Finds the source at ``path``: a file, a folder (all text files below it), or None for
    Python's standard library. Folders of runs are left out, and added to ``runs``.

    Raises:
        UsageError: ``path`` does not exist, or is a run's folder.
        DataError: no file there has a name of text.
    """
    if path is None:
        return _standard_library()
    check_exists(path, remedy="Omit `path` to train on the embedded sample")
    if path.is_file():  # the user named this very file, so it is read whatever its name
        return TextSource(root=path, files=(path,), origin=str(path))
    refuse_run(path)
    runs = set() if runs is None else runs
    files, others = texts_below(path, runs)
    if not files:
        raise DataError(
            "A folder of texts must hold files named like text (.txt, .md, code), .jsonl or "
            ".parquet",
            got=f"{path} with {others} other files",
            remedy="Name one of the files itself if it is text nevertheless",
        )
    left_out = f"not named like text, and not read: {count_text(others, 'file')}"
    notices = [left_out] if others else []
    return TextSource(
        root=path,
        files=tuple(files),
        origin=f"{path} ({count_text(len(files), 'file')})",
        notices=(*notices, *run_notices(runs)),
    )


def decode_text(content: bytes) -> tuple[str, str | None]:
    """Returns bytes as text, and what is wrong with them: UTF-8, or UTF-16 and UTF-32 with their
    byte order mark. A few undecodable places become U+FFFD; a zero byte or more than one such place
    in 20 bytes means that it is not text, and the text is empty."""
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if content.startswith(mark):
            try:
                return content.decode(encoding), None
            except UnicodeDecodeError as error:
                return "", f"not text: {error}"
    if b"\0" in content:
        return "", "not text: it holds zero bytes"
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        text = content.decode("utf-8-sig", errors="replace")
    count = text.count(_REPLACEMENT)
    if count * _BYTES_PER_BLEMISH > len(content):
        return "", f"not text: {count:,} undecodable places in {len(content):,} bytes"
    return text, f"{count:,} undecodable places were read as U+FFFD"


def _read_file(file: Path) -> tuple[str, str | None]:
    try:
        content = file.read_bytes()
    except OSError as error:
        return "", error.strerror or str(error)
    return decode_text(content) if content else ("", "empty")


def _note(faults: list[Fault], number: int, path: str, reason: str) -> None:
    faults.append(Fault(number, path, reason))


def is_text(name: str) -> bool:
    """Checks whether a file's name is that of a text or of a table."""
    return not name.startswith(".") and Path(name).suffix.lower() in TEXT_SUFFIXES | TABLE_SUFFIXES


def texts_below(folder: Path, runs: set[Path]) -> tuple[list[Path], int]:
    """Returns the files below a folder that are named like text, and how many others there are.
    Folders of runs are added to ``runs`` instead."""
    files: list[Path] = []
    others = 0
    for parent, names in walk(folder, runs):
        texts = [parent / name for name in names if is_text(name)]
        files += texts
        others += len(names) - len(texts)
    return files, others


def _standard_library() -> TextSource:
    root = Path(sysconfig.get_paths()["stdlib"])
    files: list[Path] = []
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in _NOT_LIBRARY and not name.startswith("config-")
        )
        files += [Path(parent, name) for name in sorted(names) if name.endswith(".py")]
    if not files:
        raise DataError(
            "Python's standard library must lie on this machine as source files",
            got=f"none in {root}",
            remedy="Name texts of your own",
        )
    return TextSource(
        root=root, files=tuple(files), origin=f"Python's standard library ({len(files):,} files)"
    )
