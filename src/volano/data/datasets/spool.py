"""Writes iterable datasets to disk once, as Arrow: then they are map-style, and Volano decides
their order."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from volano.errors import DataError, needs_package

_FORMAT_VERSION = 1
_EXAMPLES, _FACTS = "examples.arrow", "spool.json"
# Examples are written in groups; one group is in memory at a time.
_GROUP_EXAMPLES, _GROUP_BYTES = 1024, 16 * 2**20
_PLAIN = {bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes"}


def spool(examples: Iterable[Any], folder: str | Path, *, limit: int | None = None) -> Spooled:
    """Writes the examples to disk and returns them as a map-style dataset.

    A folder that holds such a dataset already is opened as it is, without asking for a single
    example: remove it to write other examples.

    Args:
        examples: an iterable dataset, a generator, any iterable. Examples are tensors, NumPy arrays
            and numbers, Python's numbers, strings and bytes, or tuples, lists and dicts of them,
            alike in structure.
        folder: the folder to write to. It appears when it is complete.
        limit: largest number of examples, for an iterable without an end.

    Raises:
        DataError: an example of another structure or of a type that is not stored; no example; a
            damaged folder.
        MissingExtraError: pyarrow is not installed.
    """
    folder = Path(folder).absolute()
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # A unique name, because processes of two containers may have the same number.
            own = tempfile.TemporaryDirectory(
                prefix=f"{folder.name}.partial-", dir=folder.parent, ignore_cleanup_errors=True
            )
        except OSError as error:
            raise DataError(
                "The folder must be writable to spool examples", got=f"{folder}: {error}"
            ) from error
        with own:
            _write_beside(examples, folder, limit, Path(own.name, folder.name))
    return Spooled(folder)


def _write_beside(examples: Iterable[Any], folder: Path, limit: int | None, partial: Path) -> None:
    # Within a temporary folder, because mkdtemp makes that one private.
    failures: list[OSError] = []
    try:
        partial.mkdir()
        _write(_asked(examples, failures), partial, limit)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster, and its folder stays
                raise
    except OSError as error:
        if error in failures:
            raise
        raise DataError(
            "The folder must be writable to spool examples", got=f"{partial}: {error}"
        ) from error


class Spooled(Dataset[Any]):
    """A map-style dataset over the examples that :func:`spool` wrote. They stay on disk: a batch
    reads its own."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).absolute()
        self._open()

    def __len__(self) -> int:
        return int(self._facts["num_examples"])

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[group - 1]) if group else 0)
        columns = self._reader.get_batch(group).columns
        kinds = self._facts["leaves"]
        leaves = [_decoded(kind, columns[number][row]) for number, kind in enumerate(kinds)]
        return _built(self._facts["structure"], iter(leaves))

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._folder = state["_folder"]
        self._open()

    def fingerprint(self) -> str:
        """Returns the digest of all examples, taken when they were written."""
        return str(self._facts["digest"])

    def path_of(self, index: int) -> str:
        """Returns the place of an example, for the list of corrupt ones."""
        return f"{self._folder / _EXAMPLES}[{index}]"

    def _open(self) -> None:
        arrow = _pyarrow()
        path = self._folder / _EXAMPLES
        try:
            self._facts = json.loads((self._folder / _FACTS).read_text(encoding="utf-8"))
            if self._facts["format_version"] != _FORMAT_VERSION:
                raise ValueError(f"format version {self._facts['format_version']}")
            if path.stat().st_size != self._facts["num_bytes"]:
                raise ValueError(
                    f"{path.stat().st_size} bytes instead of {self._facts['num_bytes']}"
                )
            self._reader = arrow.ipc.open_file(arrow.memory_map(str(path)))
        except (OSError, ValueError, KeyError, arrow.ArrowException) as error:
            raise DataError(
                "A spooled dataset must be a complete folder that volano.spool wrote",
                got=f"{self._folder}: {error}",
                remedy="Remove it; then it is written again",
            ) from error
        self._ends = np.cumsum(self._facts["groups"])


def _asked(examples: Iterable[Any], failures: list[OSError]) -> Iterator[Any]:
    # A file that the iterable itself cannot read is not a failure of writing: its error is kept.
    try:
        yield from examples
    except OSError as error:
        failures.append(error)
        raise


def _write(examples: Iterable[Any], folder: Path, limit: int | None) -> None:
    arrow = _pyarrow()
    digest, groups, path = hashlib.sha256(), [], folder / _EXAMPLES
    first: tuple[Any, list[str]] | None = None
    writer: Any = None
    with contextlib.ExitStack() as stack:
        for group in _groups(examples, limit):
            rows: list[list[Any]] = []
            for number, example in group:
                leaves: list[tuple[str, Any]] = []
                structure = _taken_apart(example, leaves, f"example {number}")
                found = structure, [kind for kind, _ in leaves]
                first = first or found
                _check_alike(number, found, first)
                rows.append([value for _, value in leaves])
                for value in rows[-1]:
                    is_bytes = isinstance(value, dict)
                    digest.update(value["bytes"] if is_bytes else repr(value).encode())
            assert first is not None
            columns = [
                arrow.array([row[place] for row in rows], type=_arrow_type(kind))
                for place, kind in enumerate(first[1])
            ]
            batch = arrow.record_batch(columns, names=[str(n) for n in range(len(columns))])
            writer = writer or stack.enter_context(arrow.ipc.new_file(str(path), batch.schema))
            writer.write_batch(batch)
            groups.append(len(group))
    if first is None:
        raise DataError("A spooled dataset must hold at least one example", got="0 examples")
    digest.update(json.dumps(first).encode())
    facts = {
        "format_version": _FORMAT_VERSION,
        "num_examples": sum(groups),
        "num_bytes": path.stat().st_size,
        "digest": digest.hexdigest()[:32],
        "structure": first[0],
        "leaves": first[1],
        "groups": groups,
    }
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _check_alike(number: int, found: tuple[Any, list[str]], first: tuple[Any, list[str]]) -> None:
    if found != first:
        raise DataError(
            "The examples of a spooled dataset must be alike in structure and types",
            got=f"example {number} of {_shown(*found)}, the first of {_shown(*first)}",
        )


def _groups(examples: Iterable[Any], limit: int | None) -> Iterator[list[tuple[int, Any]]]:
    group: list[tuple[int, Any]] = []
    size = 0
    for number, example in enumerate(examples):
        if limit is not None and number >= limit:
            break
        group.append((number, example))
        size += _size(example)
        if len(group) >= _GROUP_EXAMPLES or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(example: Any) -> int:
    if isinstance(example, Mapping):
        return sum(map(_size, example.values()))
    if isinstance(example, tuple | list):
        return sum(map(_size, example))
    if isinstance(example, Tensor | np.ndarray):
        return example.nbytes
    return len(example) if isinstance(example, str | bytes) else 8


# ---- examples and their leaves. A structure is JSON: ["dict", [[key, structure], ...]], ["tuple",
# [...]], "leaf"


def _taken_apart(example: Any, leaves: list[tuple[str, Any]], path: str) -> Any:
    if isinstance(example, Mapping):
        for key in example:
            if not isinstance(key, str | int):
                raise DataError(
                    "The keys of a spooled example must be strings or whole numbers",
                    got=f"{path}[{key!r}]",
                )
        items = example.items()
        pairs = [[key, _taken_apart(value, leaves, f"{path}[{key!r}]")] for key, value in items]
        return ["dict", pairs]
    if isinstance(example, tuple | list):
        name, items = "tuple" if isinstance(example, tuple) else "list", enumerate(example)
        return [name, [_taken_apart(value, leaves, f"{path}[{n}]") for n, value in items]]
    leaves.append(_encoded(example, path))
    return "leaf"


def _built(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure == "leaf":
        return next(leaves)
    kind, inside = structure
    if kind == "dict":
        return {key: _built(value, leaves) for key, value in inside}
    return (tuple if kind == "tuple" else list)(_built(value, leaves) for value in inside)


def _encoded(value: Any, path: str) -> tuple[str, Any]:
    plain = _PLAIN.get(type(value))
    if plain == "int" and not -(2**63) <= value < 2**63:
        raise DataError("A spooled whole number must fit into 64 bits", got=f"{value} at {path}")
    if plain is not None:
        return plain, value
    if isinstance(value, Tensor) and value.layout == torch.strided:
        flat = value.detach().cpu().contiguous().reshape(-1)
        content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        return f"tensor:{str(value.dtype).removeprefix('torch.')}", {
            "bytes": content,
            "shape": list(value.shape),
        }
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return f"{kind}:{value.dtype.str}", {"bytes": value.tobytes(), "shape": list(value.shape)}
    raise DataError(
        "A spooled example must consist of tensors, arrays, numbers, strings and bytes",
        got=f"a {type(value).__name__} at {path}",
        remedy="Turn it into one of these before spooling",
    )


def _decoded(kind: str, stored: Any) -> Any:
    name, _, dtype = kind.partition(":")
    if not dtype:
        return stored.as_py()
    # A copy: the mapping cannot be written to, and an example belongs to the caller.
    content, shape = bytearray(stored["bytes"].as_buffer()), stored["shape"].as_py()
    if name == "tensor":
        if not content:
            return torch.empty(shape, dtype=getattr(torch, dtype))
        return torch.frombuffer(content, dtype=getattr(torch, dtype)).reshape(shape)
    array = np.frombuffer(content, dtype=np.dtype(dtype)).reshape(shape)
    return array[()] if name == "scalar" else array


def _arrow_type(kind: str) -> Any:
    arrow = _pyarrow()
    if ":" in kind:
        return arrow.struct(
            [("bytes", arrow.large_binary()), ("shape", arrow.list_(arrow.int64()))]
        )
    return {
        "bool": arrow.bool_(),
        "int": arrow.int64(),
        "float": arrow.float64(),
        "str": arrow.large_string(),
        "bytes": arrow.large_binary(),
    }[kind]


def _shown(structure: Any, kinds: list[str]) -> str:
    return str(_built(structure, iter(kinds)))


def _pyarrow() -> Any:
    with needs_package("Spooling needs pyarrow", "'volano[data]'"):
        import pyarrow
        import pyarrow.ipc
    return pyarrow
