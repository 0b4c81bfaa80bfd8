"""Decides which clips of a folder are held out, and finds those of a run again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from volano.data.counters import counter_hash
from volano.data.sources.split import BY_PLACE, hold_out_groups
from volano.data.sources.split_record import (
    HOLD_OUT_SHARE,
    TEST,
    TRAIN,
    SplitMember,
    SplitRecord,
    file_key,
    grouped,
    member_rows,
)
from volano.data.sources.video.clip_folders import ClipFile
from volano.errors import DataError

_SPLIT = 43  # first counter of the hashes


def clip_members(
    files: Sequence[ClipFile], classes: tuple[str, ...], root: Path
) -> list[SplitMember]:
    """Returns the files as members of a split."""
    return [
        SplitMember(
            file_key(file.path),
            classes[file.label] if classes else "",
            os.path.relpath(file.path, root),
        )
        for file in files
    ]


def clips_again(
    files: Sequence[ClipFile], members: Sequence[SplitMember], recorded: SplitRecord, root: Path
) -> tuple[tuple[ClipFile, ...], list[SplitMember]]:
    """Returns the files of a run, each on its side and with the number of its class in the run.

    Raises:
        DataError: a side has none left.
    """
    places = [
        (TEST, member_rows(recorded[TEST], members)),
        (TRAIN, member_rows(recorded[TRAIN], members)),
    ]
    for split, rows in places:
        if not rows:
            raise DataError(
                "Some of a run's own clips must be there",
                got=f"none of the {len(recorded[split]):,} of its {split} set in {root}",
                remedy="Put them back",
            )
    number = {name: label for label, name in enumerate(recorded.classes)}
    chosen = [
        (
            dataclasses.replace(
                files[row], label=number.get(members[row].label, 0), is_test=split == TEST
            ),
            members[row],
        )
        for split, rows in reversed(places)
        for row in rows
    ]
    return tuple(file for file, _ in chosen), [member for _, member in chosen]


def hold_out_clips(
    files: Sequence[ClipFile],
    decoded: dict[int, np.ndarray],
    keys: Sequence[str],
    classes: tuple[str, ...],
    seed: int,
    held_out_by: str,
    *,
    least: int = 0,
) -> tuple[list[int], list[int]]:
    """Returns the rows that are trained on, and those of about 15 % of the files of each class, at
    least one; exact copies stay on one side. A class of a single clip gives none.

    Raises:
        DataError: a class has fewer than ``least`` different clips.
    """
    rows, clips = [*decoded], decoded.values()
    digests = [hashlib.blake2b(clip.tobytes(), digest_size=16).digest() for clip in clips]
    groups = [[rows[place] for place in part] for part in grouped(digests)]
    if held_out_by == BY_PLACE:
        held = _held_by_place(files, groups, classes, seed)
        return [row for row in decoded if row not in held], sorted(held)
    kept, test = hold_out_groups(
        groups, keys, [file.label for file in files], classes or ("",), seed=seed, what="clips",
        least=least,
    )  # fmt: skip
    return kept.tolist(), test.tolist()


def _held_by_place(
    files: Sequence[ClipFile], groups: list[list[int]], classes: tuple[str, ...], seed: int
) -> set[int]:
    held: set[int] = set()
    for label in range(max(1, len(classes))):
        of_class = [rows for rows in groups if files[rows[0]].label == label]
        of_class.sort(key=lambda rows: counter_hash(_SPLIT, seed, rows[0]))
        wanted = max(1, round(HOLD_OUT_SHARE * sum(map(len, of_class))))
        taken = 0
        for rows in of_class[:-1]:
            if taken < wanted:
                held.update(rows)
                taken += len(rows)
    return held
