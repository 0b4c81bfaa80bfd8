"""The folder in which a user's programs keep what they could find again."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volano.record.json_values import read_object


def cache_folder() -> Path:
    """Returns the folder of remembered plans: ``volano`` in the user's cache folder, as each system
    has it.

    For a user without a home it is a folder that cannot exist: nothing is found in it, and writing
    to it fails as in any other place that cannot be written.
    """
    try:
        return _cache_root() / "volano"
    except RuntimeError:  # of Path.home
        return Path(os.devnull) / "volano"


def _cache_root() -> Path:
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home())
    return (
        Path.home() / "Library" / "Caches" if sys.platform == "darwin" else Path.home() / ".cache"
    )


def read_record(path: Path, schema_version: int | None = None) -> Mapping[str, Any]:
    """Returns what :func:`write_record` wrote; an empty mapping if it cannot be read, or is of
    another version."""
    record = read_object(path, [])
    return record if schema_version in (None, record.get("schema_version")) else {}


def write_record(path: Path, record: dict[str, Any]) -> str | None:
    """Writes a file of the cache folder to a temporary file that is then renamed. Returns why it
    could not be written, or None."""
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
        ) as file:
            name = file.name
            json.dump(record, file, indent=1)
        Path(name).replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            if name:
                Path(name).unlink()
        return f"{path.parent}: {error.strerror}"
    return None
