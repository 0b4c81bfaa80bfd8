"""Opens local tables as map-style datasets, by Hugging Face's ``datasets``: Parquet, JSON lines,
CSV and Arrow."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from volano.errors import DataError, UsageError, VolanoError, needs_package

_READERS = {
    ".parquet": "from_parquet",
    ".jsonl": "from_json",
    ".json": "from_json",
    ".csv": "from_csv",
}
_ARROW = (".arrow", ".feather")
# The file format of Arrow, which Feather is too, begins with it; streams, which datasets writes, do
# not.
_FILE_MAGIC = b"ARROW1"


def open_table(
    path: str | Path, *, columns: Sequence[str] | None = None, cache: str | Path | None = None
) -> Any:
    """Opens a table as a Hugging Face ``Dataset``, mapped from disk: rows are dicts, numbers in
    them tensors.

    Parquet, JSON lines and CSV are turned into Arrow once, in the cache; Arrow streams and files
    (Feather too) are mapped in place, except that compressed ones are read into memory. Any
    other map-style ``Dataset`` of Hugging Face can be a task's data just as well, in the format
    that you gave it.

    Args:
        path: a .parquet, .jsonl, .csv, .arrow or .feather file, or a folder that
            ``Dataset.save_to_disk`` wrote.
        columns: columns to keep; None keeps all.
        cache: folder of the Arrow copy; None stands for that of ``datasets``.

    Raises:
        UsageError: there is nothing at ``path``, or something other than a table.
        DataError: the table is damaged or empty, or a column is missing.
        MissingExtraError: ``datasets`` is not installed.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise UsageError(
            "A table must be a file, or a folder that save_to_disk wrote",
            got=f"{path}, which is not there",
        )
    table = _opened(path, None if cache is None else str(cache))
    if not len(table):
        raise _empty(path)
    missing = [name for name in columns or () if name not in table.column_names]
    if missing:
        raise DataError(
            "A table must have the requested columns",
            got=f"{path} without {', '.join(missing)}; it has {', '.join(table.column_names)}",
        )
    return table.with_format("torch", columns=None if columns is None else list(columns))


def _opened(path: Path, cache: str | None) -> Any:
    datasets = _datasets()
    suffix = path.suffix.lower()
    if not path.is_dir() and suffix not in (*_READERS, *_ARROW):
        raise UsageError(
            f"A table's name must end in {', '.join((*_READERS, *_ARROW))}", got=str(path)
        )
    try:
        with _no_progress(datasets):
            if path.is_dir():
                found = datasets.load_from_disk(str(path))
                if isinstance(found, dict):
                    raise UsageError(
                        "A folder of several tables must be opened one by one",
                        got=f"{path} with {', '.join(found)}",
                        remedy=f"Open {path / next(iter(found))}",
                    )
                return found
            if suffix in _ARROW:
                return _arrow_table(datasets, path)
            # Datasets' own reader stumbles over it.
            if suffix == ".parquet" and not _num_parquet_rows(path):
                raise _empty(path)
            return getattr(datasets.Dataset, _READERS[suffix])(str(path), cache_dir=cache)
    except VolanoError:
        raise
    except Exception as error:  # readers raise errors of pyarrow, pandas, json and of their own
        cause = error.__cause__ or error
        raise DataError(
            "A table must be a complete file of its kind",
            got=f"{path}: {type(cause).__name__}: {str(cause)[:300]}",
        ) from error


def _arrow_table(datasets: Any, path: Path) -> Any:
    with path.open("rb") as file:
        is_file_format = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
    if not is_file_format:
        return datasets.Dataset.from_file(str(path))  # a stream
    import pyarrow.ipc

    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()
    # Without a fingerprint datasets would read the whole table to make one; only its own caches use
    # it.
    facts = path.stat()
    fingerprint = hashlib.sha256(
        f"{path},{facts.st_size},{facts.st_mtime_ns}".encode()
    ).hexdigest()[:32]
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=fingerprint)


def _num_parquet_rows(path: Path) -> int:
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(path).num_rows)


def _empty(path: Path) -> DataError:
    return DataError("A table must hold at least one row", got=f"{path} with none")


@contextlib.contextmanager
def _no_progress(datasets: Any) -> Iterator[None]:
    was_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_shown:
            datasets.enable_progress_bars()


def _datasets() -> Any:
    with needs_package("Tables need Hugging Face's datasets", "'volano[data]'"):
        import datasets
    return datasets
