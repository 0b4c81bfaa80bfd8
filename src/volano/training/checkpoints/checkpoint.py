"""The checkpoints: written next to their place, synced, renamed; the last two are kept; nothing but
tensors and plain values is loaded.

checkpoints/step-00001200/
    state.pt           torch.save of tensors, numbers and strings; loads with weights_only=True
    shards/            of a sharded model: the ranks' parts of its tensors, see shards.py
    manifest.json      schema version, step, digest of each file
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from volano.bounded_json import parse_json
from volano.device import Ranks
from volano.errors import CheckpointError, first_line
from volano.record import files
from volano.training.checkpoints import shards

SCHEMA_VERSION = 1
NUM_KEPT = 2
_MANIFEST = {"schema_version", "step", "state_sha256", "shards_sha256"}
# What torch raises of a file that is none of its own.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError,
    AttributeError,
)  # fmt: skip
_PREFIX, _PARTIAL, _DAMAGED = "step-", ".partial-", "damaged-"


def path_of(folder: Path, step: int) -> Path:
    """Returns where the checkpoint of ``step`` lies."""
    return folder / f"{_PREFIX}{step:08d}"


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], *, ranks: Ranks | None = None
) -> Path:
    """Writes ``state`` as the checkpoint of ``step`` and removes all but the last two.

    Args:
        ranks: the ranks among which the state is sharded; all of them call this. Otherwise the
            first alone does.

    Raises:
        CheckpointError: it could not be written; the checkpoints before it are whole.
    """
    target = path_of(folder, step)
    partial = folder / f"{_PARTIAL}{target.name}"
    state, parts = shards.take_out(state)
    if not parts:
        _write(partial, target, step, state)
        return target
    ranks = ranks or Ranks()
    _together(ranks, lambda: _fresh(partial))
    try:
        shards.save(partial / shards.FOLDER, parts)
    except CheckpointError:
        if ranks.is_first:  # on a full disk it would be in the way of the next
            files.remove(partial)
        raise
    _together(ranks, lambda: _write(partial, target, step, state))
    return target


def _together(ranks: Ranks, act: Callable[[], None]) -> None:
    """The first rank acts; if it fails, all fail."""
    failure = None
    if ranks.is_first:
        try:
            act()
        except (CheckpointError, OSError) as error:
            failure = error
    text = ranks.tell("" if failure is None else str(failure))
    if failure is not None or text:
        raise CheckpointError("A checkpoint must be writable", got=text) from failure


def _fresh(partial: Path) -> None:
    files.make_folder(partial.parent)
    files.remove(partial)
    partial.mkdir()


def _write(partial: Path, target: Path, step: int, state: dict[str, Any]) -> None:
    watched = None
    try:
        if not (partial / shards.FOLDER).is_dir():
            _fresh(partial)
        with (partial / "state.pt").open("wb") as file:
            watched = _Watched(file)
            torch.save(state, watched)  # pyright: ignore[reportArgumentType] - it asks for write and flush alone
            _sync(file)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "step": step,
            "state_sha256": digest_of(partial / "state.pt"),
        }
        parts = sorted((partial / shards.FOLDER).glob("*"))
        if parts:
            manifest["shards_sha256"] = {path.name: digest_of(path) for path in parts}
        with (partial / "manifest.json").open("w", encoding="utf-8") as file:
            json.dump(manifest, file)
            _sync(file)
        files.sync_folder(partial)
        _remove(target)
        partial.rename(target)
        files.sync_folder(target.parent)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        files.remove(partial)
        cause = (watched and watched.error) or error
        raise CheckpointError(
            "A checkpoint must be writable",
            got=f"{target}: {cause}",
            remedy=f"{files.remedy_of(cause) or 'Make room on the disk'}; the checkpoints before "
            "it are whole",
        ) from error
    for old in list_checkpoints(target.parent)[:-NUM_KEPT]:
        _remove(old)


def tidy_checkpoints(folder: Path) -> None:
    """Removes what a process that was killed had half written or half removed. Only the folder's
    holder may."""
    for path in folder.glob(f"{_PARTIAL}*"):
        files.remove(path)


def _remove(path: Path) -> None:
    # Renamed first: a process that is killed in between must not leave half a checkpoint under a
    # whole one's name.
    doomed = path.with_name(f"{_PARTIAL}old-{path.name}")
    with contextlib.suppress(OSError):
        path.rename(doomed)
    files.remove(doomed)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def load_latest(folder: Path) -> tuple[int, dict[str, Any], list[str]]:
    """Returns the step and state of the last whole checkpoint, on the host, and what was wrong with
    later ones.

    Raises:
        CheckpointError: there is none.
    """
    problems: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            step, state = load_checkpoint(path)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return step, state, problems
    raise CheckpointError(
        "A run to resume must have a whole checkpoint",
        got=f"none in {folder}" + "".join(f"; {problem}" for problem in problems),
        remedy="Remove the damaged ones to resume from the first step, or start again with volano "
        "train",
    )


def set_aside_after(folder: Path, step: int) -> None:
    """Renames checkpoints later than ``step``, which were passed over: they must not count among
    the two kept."""
    for path in list_checkpoints(folder):
        if path.name > f"{_PREFIX}{step:08d}":
            target = path.with_name(f"{_DAMAGED}{path.name}")
            files.remove(target)
            with contextlib.suppress(OSError):
                path.rename(target)


def load_checkpoint(path: Path, *, verify: bool = True) -> tuple[int, dict[str, Any]]:
    """Returns the step and state of one checkpoint; sharded tensors are left to
    ``shards.put_back``.

    Args:
        path: the path of its folder.
        verify: whether to look at the digests; one of several ranks does.

    Raises:
        CheckpointError: a file is missing or damaged, or it is of another schema version.
    """
    step, digests = _manifest(path)
    try:
        for name, digest in digests.items() if verify else ():
            if digest_of(path / name) != digest:
                raise CheckpointError(
                    f"A checkpoint's {name} must have the digest in its manifest",
                    got=f"another in {path}",
                )
        with files.open_regular(path / "state.pt") as file:
            return step, torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            "A checkpoint's files must be readable", got=f"{path}: {error}"
        ) from error
    except UNREADABLE as error:
        raise CheckpointError(
            "A checkpoint must hold tensors and plain values, and nothing to execute",
            got=f"{path}: {first_line(error)}",
        ) from error


def _manifest(path: Path) -> tuple[int, dict[str, str]]:
    """Returns the step of a checkpoint, and the digests of its files."""
    try:
        manifest = parse_json(files.read_bytes(path / "manifest.json"))
        unknown = sorted(manifest.keys() - _MANIFEST)
        if unknown:  # a name that lost a bit
            raise KeyError(*unknown)
        version, step = manifest["schema_version"], manifest["step"]
        digests = {"state.pt": manifest["state_sha256"]}
        parts = manifest.get("shards_sha256", {}).items()
        digests |= {f"{shards.FOLDER}/{name}": value for name, value in parts}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "A checkpoint must have a readable manifest.json", got=f"{path}: {error!r}"
        ) from error
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"This version of Volano reads checkpoints of schema version {SCHEMA_VERSION}",
            got=f"{version!r} in {path}",
        )
    if not isinstance(step, int) or path.name != f"{_PREFIX}{step:08d}":
        raise CheckpointError(
            "A checkpoint's folder must be named after its step", got=f"step {step!r} in {path}"
        )
    return step, digests


class _Watched:
    """A file that remembers why a write failed: torch's archive writer reports such a failure as
    something else."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with files.open_regular(path) as file:
        return hashlib.file_digest(cast("BufferedReader", file), "sha256").hexdigest()
