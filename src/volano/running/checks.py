"""The checks and names that the applications' verbs share."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from volano.errors import CheckpointError, UsageError
from volano.training import RunFolder

# eval-test.json holds the figures of a run's own test set.
_OWN = "test"
_MOST_BYTES = 200


def check_data_is_there(path: str | Path | None, what: str) -> None:
    """Raises UsageError when the data that a run was made from (``what`` in words) is gone; None is
    an embedded sample."""
    if path is not None and not Path(path).exists():
        raise UsageError(
            f"The {what} of the run must be where they were",
            got=f"{path}, which is gone",
            remedy="Put them back",
        )


def check_begun(folder: RunFolder) -> None:
    """Raises UsageError when a run was killed before its folder held all that it takes to begin."""
    if folder.read_json("run.json").get("status") == "starting":
        raise UsageError(
            "A run must have begun",
            got=f"{folder.path}, which was killed while it was being prepared",
            remedy=f"Start it again in the same way, with `out` {folder.path}",
        )


def check_ended(folder: RunFolder) -> None:
    """Raises CheckpointError when a run holds no trained weights yet."""
    if not (folder.path / "model.safetensors").is_file():
        raise CheckpointError(
            "A run that has ended must hold model.safetensors",
            got=f"none in {folder.path}",
            remedy=f"Continue it: {folder.resume_command}",
        )


def evaluation_name(path: str | Path) -> str:
    """Returns the NAME of ``eval-NAME.json`` for data at ``path``: its name without a suffix, never
    the one of the run's own test set."""
    name = Path(os.path.normpath(Path(path).absolute())).stem or "data"
    # A file's name has 255 bytes at most, some of which stand around this one.
    if len(os.fsencode(name)) > _MOST_BYTES:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        while len(os.fsencode(name)) > _MOST_BYTES - len(digest) - 1:
            name = name[:-1]
        name = f"{name}-{digest}"
    return f"other-{name}" if name.lower() == _OWN else name
