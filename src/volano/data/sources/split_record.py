"""Keeps which example lies in which split of a run: known by its content and its class, whatever
its row or the name of its file."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from volano.errors import CheckpointError, DataError

SPLITS_NAME = "splits.json"
TRAIN, VALID, TEST = "train", "valid", "test"
# Of a source that names no split.
HOLD_OUT_SHARE = 0.15
SCHEMA_VERSION = 1
# Files above this size are known by their size and three places: a set that stays in its files may
# be larger than anyone wants to read before the first step.
_READ_WHOLE_BYTES, _PLACE_BYTES = 2**16, 4096
_MOST_NAMED = 3


class SplitMember(NamedTuple):
    """An example: the key of its content, the name of its class, and its own name, for people."""

    key: str
    label: str
    name: str

    @property
    def identity(self) -> tuple[str, str]:
        """The key and the class: another name is no other example."""
        return self.key, self.label


def content_key(content: bytes) -> str:
    """Returns the key of an example whose content is in memory."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def file_key(path: Path) -> str:
    """Returns the key of a file: of its content, or of its size and its beginning, middle and end
    if it is larger than 64 KiB. A file that cannot be read is known by its path."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{size}\0".encode())
            if size <= _READ_WHOLE_BYTES:
                digest.update(file.read())
            else:
                for place in (0, (size - _PLACE_BYTES) // 2, size - _PLACE_BYTES):
                    file.seek(place)
                    digest.update(file.read(_PLACE_BYTES))
    except (OSError, ValueError):  # a name with a zero byte is a ValueError
        digest.update(os.fsencode(path))
    return digest.hexdigest()


def members_of(
    keys: Iterable[str], labels: Iterable[int | str], classes: Sequence[str], names: Iterable[str]
) -> list[SplitMember]:
    """Returns the members of a set, whose labels are numbers of classes, or several labels and
    numbers as texts; a source without classes has the class ``""``."""
    return [
        SplitMember(
            key, label if isinstance(label, str) else classes[label] if classes else "", name
        )
        for key, label, name in zip(keys, labels, names, strict=True)
    ]


def grouped(keys: Iterable[Hashable]) -> list[list[int]]:
    """Returns all rows, those of equal key together."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    return list(groups.values())


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """The membership of every split of a run, as its folder keeps it in ``splits.json``.

    Attributes:
        classes: the classes, in the order of the labels; none of several labels or numbers.
        parts: members by split (train, valid, test), in the order in which they are trained on.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[SplitMember]] = field(repr=False)

    def __getitem__(self, split: str) -> Sequence[SplitMember]:
        return self.parts.get(split, ())

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON values."""
        number = {name: place for place, name in enumerate(self.classes)}
        splits = {
            split: {
                "keys": [member.key for member in members],
                "labels": [number.get(member.label, member.label or 0) for member in members],
                "names": [member.name for member in members],
            }
            for split, members in self.parts.items()
        }
        classes = list(self.classes)
        return {"schema_version": SCHEMA_VERSION, "classes": classes, "splits": splits}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SplitRecord:
        """The inverse of :meth:`to_json`.

        Raises:
            CheckpointError: another schema version, or fields that do not belong.
        """
        try:
            if value["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {value['schema_version']!r}")
            classes = tuple(map(str, value["classes"]))
            parts = {
                split: members_of(
                    map(str, part["keys"]), part["labels"], classes, map(str, part["names"])
                )
                for split, part in value["splits"].items()
            }
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise CheckpointError(
                f"{SPLITS_NAME} must say which example is in which split, in schema version "
                f"{SCHEMA_VERSION}",
                got=f"{type(error).__name__}: {error}",
            ) from error
        return cls(classes=classes, parts=parts)

    def changes(self, present: Sequence[SplitMember], what: str) -> tuple[str, ...]:
        """Returns in words what is missing and new among the members that are there now; ``what``:
        what they are ("images")."""
        there, here = defaultdict(int), {member.key for member in present}
        for member in present:
            there[member.identity] += 1
        every = [member for part in self.parts.values() for member in part]
        known, identities = {m.key for m in every}, {m.identity for m in every}
        words = {
            TEST: f"of the run's {len(self[TEST]):,} test {what} are missing: the figures are of "
            "the others",
            VALID: f"of the run's {len(self[VALID]):,} validation {what} are missing",
            TRAIN: f"of the {len(self[TRAIN]):,} {what} that the run was trained on are missing",
        }
        notices = []
        for split, rule in words.items():
            missing = [m for m in self[split] if m.key not in here]
            if missing:
                notices.append(f"changed since the run: {len(missing):,} {rule}{_named(missing)}")
        # A content in two classes was so before.
        moved = [m for m in present if m.key in known and m.identity not in identities]
        new = [m for m in present if m.key not in known]
        if moved:
            notices.append(
                f"changed since the run: {len(moved):,} {what} have another class now, and are not "
                f"evaluated{_named(moved)}"
            )
        if new:
            notices.append(
                f"changed since the run: {len(new):,} {what} are new, and are not "
                f"evaluated{_named(new)}"
            )
        return tuple(notices)

    def check_there(
        self, found: Mapping[str, Sized], present: Sequence[SplitMember], what: str, path: Any
    ) -> None:
        """Checks that a run can go on with the examples of each split that were found.

        Raises:
            CheckpointError: some are missing.
        """
        if any(len(part) < len(self[split]) for split, part in found.items()):
            changes = self.changes(present, what)
            raise CheckpointError(
                f"The {what} of a run must be there to continue it",
                # Of two examples with the same content one may be there.
                got=f"{path}: {changes[0] if changes else 'some copies are missing'}",
                remedy="Put them back, or train again",
            )

    def check_tested(self, found: Sized, what: str, path: Any) -> None:
        """Raises DataError if none of the run's own test examples was found."""
        if not len(found):
            raise DataError(
                f"Some of a run's own test {what} must be there",
                got=f"none of {len(self[TEST]):,} in {path}",
                remedy="Put them back, or name others to evaluate on",
            )

    def trained_on(self, members: Sequence[SplitMember], what: str) -> tuple[str, ...]:
        """Returns in words how many of the members are among those that were trained on."""
        return copies_of_training(self[TRAIN], members, what, "that the run was trained on")


def copies_of_training(
    train: Sequence[SplitMember],
    tested: Sequence[SplitMember],
    what: str,
    whose: str = "to train on",
) -> tuple[str, ...]:
    """Returns in words how many tested examples have the content of training examples."""
    known = {member.key for member in train}
    seen = [member for member in tested if member.key in known]
    if not seen:
        return ()
    return (
        f"{len(seen):,} of the {len(tested):,} tested {what} are among those {whose}: their "
        f"figures say nothing about new ones{_named(seen)}",
    )


def contradictions(members: Sequence[SplitMember], what: str) -> tuple[str, ...]:
    """Returns in words how many members have the content of one of another class."""
    labels: dict[str, set[str]] = defaultdict(set)
    for member in members:
        labels[member.key].add(member.label)
    torn = [member for member in members if len(labels[member.key]) > 1]
    if not torn:
        return ()
    return (
        f"{len(torn):,} of the {len(members):,} {what} to train on have the same content as one "
        f"with another target: nothing can tell them apart{_named(torn)}",
    )


def member_rows(wanted: Sequence[SplitMember], present: Sequence[SplitMember]) -> list[int]:
    """Returns the places of members among those that are present, in the order of ``wanted``;
    members that are missing are left out."""
    places: dict[tuple[str, str], deque[int]] = defaultdict(deque)
    for place, member in enumerate(present):
        places[member.identity].append(place)
    return [places[m.identity].popleft() for m in wanted if places.get(m.identity)]


def _named(members: Sequence[SplitMember]) -> str:
    names = ", ".join(member.name for member in members[:_MOST_NAMED])
    return f" ({names}{', ...' if len(members) > _MOST_NAMED else ''})"
