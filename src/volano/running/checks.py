"""The checks and names that the applications' verbs share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from volano.errors import CheckpointError, UsageError, VolanoError
from volano.training import RunFolder

# eval-test.json holds the figures of a run's own test set.
_OWN = "test"


def check_data_is_there(path: str | Path | None, what: str) -> None:
    """Raises UsageError when the data that a run was made from (``what`` in words) is gone; None is
    an embedded sample."""
    if path is not None and not Path(path).exists():
        raise UsageError(
            f"The {what} of the run must be where they were",
            got=f"{path}, which is gone",
            remedy="Put them back",
        )


def check_ended(folder: RunFolder) -> None:
    """Raises CheckpointError when a run holds no trained weights yet."""
    if not (folder.path / "model.safetensors").is_file():
        raise CheckpointError(
            "A run that has ended must hold model.safetensors",
            got=f"none in {folder.path}",
            remedy=f"volano resume {folder.path}",
        )


@contextlib.contextmanager
def as_described(folder: RunFolder) -> Iterator[None]:
    """A context in which a run of an application is made from its folder. Its files have been
    parsed; what they state may still be of another type, missing, or beyond any model.

    Raises:
        CheckpointError: something in them cannot be.
    """
    try:
        yield
    except (VolanoError, OSError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(
            "The files of a run must be as its application wrote them",
            got=f"{folder.path}: {type(error).__name__}: {error}",
            remedy="They are damaged, or of another version; `debug` shows where",
        ) from error


def evaluation_name(path: str | Path) -> str:
    """Returns the NAME of ``eval-NAME.json`` for data at ``path``: its name without a suffix, never
    the one of the run's own test set."""
    name = Path(os.path.normpath(Path(path).absolute())).stem or "data"
    return f"other-{name}" if name.lower() == _OWN else name
