"""The store of plans that were found before, in the user's cache folder: one JSON file each, named
by its fingerprint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from volano.errors import PlanError, UsageError
from volano.plan.explanation import Explanation
from volano.record.cache_folder import cache_folder, read_record, write_record

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """A plan that was found before.

    Attributes:
        fingerprint: the fingerprint under which it was found.
        created: seconds since 1970.
        explanation: the explanation that was given then.
        may_split: whether the task's batch may be cut into micro-batches; None if that was not
            found out.
        path: its file.
    """

    fingerprint: str
    created: float
    explanation: Explanation
    may_split: bool | None
    path: Path


def remember(
    fingerprint: str, explanation: Explanation, *, may_split: bool | None = None
) -> str | None:
    """Writes a plan to a temporary file that is then renamed. Returns why it could not be written,
    or None."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "created": time.time(),
        "may_split": may_split,
        "explanation": explanation.to_json(),
    }
    return write_record(_plans() / f"{fingerprint}.json", record)


def recall(fingerprint: str) -> Remembered | None:
    """Returns the plan of a fingerprint; None if there is none, or none that this version can
    read."""
    return _read(_plans() / f"{fingerprint}.json")


def list_remembered() -> list[Remembered]:
    """Returns all remembered plans that can be read, the newest first."""
    found = [_read(path) for path in sorted(_plans().glob("*.json"))]
    return sorted((plan for plan in found if plan is not None), key=lambda plan: -plan.created)


def find_remembered(start: str) -> Remembered:
    """Returns the remembered plan whose fingerprint begins with ``start``.

    Raises:
        UsageError: no fingerprint begins so, or several do.
    """
    found = [plan for plan in list_remembered() if plan.fingerprint.startswith(start)]
    if len(found) != 1 or not start:
        names = [plan.fingerprint[:8] for plan in (found or list_remembered())[:6]]
        raise UsageError(
            "The fingerprint of exactly one remembered plan must begin with what is given",
            got=f"{start!r}, with which {len(found) or 'none'} begin{'' if found else 's'}",
            remedy=f"There are: {', '.join(names)}" if names else "No plan is remembered yet",
        )
    return found[0]


def forget_all() -> int:
    """Removes every remembered plan, readable or not. Returns how many there were."""
    paths = list(_plans().glob("*.json"))
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)


def _plans() -> Path:
    return cache_folder() / "plans"


def _read(path: Path) -> Remembered | None:
    record = read_record(path, SCHEMA_VERSION)
    try:
        return Remembered(
            fingerprint=str(record["fingerprint"]),
            created=float(record["created"]),
            explanation=Explanation.from_json(record["explanation"]),
            may_split=record["may_split"],
            path=path,
        )
    except (ValueError, KeyError, TypeError, PlanError):  # damaged: planned again
        return None
