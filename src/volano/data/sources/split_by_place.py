"""Holds out as runs did before their membership was kept: by the places of examples in their
source. For runs that were begun so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from volano.data.counters import counter_hash
from volano.data.sources.image.image_files import ImageFiles, copies_of
from volano.data.sources.image.images import LabelledImages
from volano.data.sources.split_record import HOLD_OUT_SHARE, grouped
from volano.errors import DataError

_SPLIT = 21  # first counter of the hashes


def hold_out_by_place(images: LabelledImages, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits pictures by :func:`hold_out_rows_by_place`; copies are equal in every pixel, or
    in every byte if they stay in files.

    Unreadable files take part in the division and are then left out of both sides. So a file that
    is repaired or damaged later, or that is read only in training, moves no other file to the other
    side (unless it becomes the copy of another).

    Raises:
        DataError: a class has fewer than two different images.
    """
    labels, copies = images.labels.tolist(), images.copies()
    if isinstance(images.images, ImageFiles) or not images.fault_labels:
        return _hold_out(copies, labels, images.classes, seed, "images")
    lost = {
        fault.index: label for fault, label in zip(images.faults, images.fault_labels, strict=True)
    }
    places = [place for place in range(len(labels) + len(lost)) if place not in lost]
    row_of = {place: row for row, place in enumerate(places)}
    broken = list(lost)
    copies = [[places[row] for row in rows] for rows in copies]
    copies += [
        [broken[n] for n in group]
        for group in copies_of([Path(str(f.path)) for f in images.faults])
    ]
    everything = [
        lost[place] if place in lost else labels[row_of[place]]
        for place in range(len(places) + len(lost))
    ]
    sides = _hold_out(copies, everything, images.classes, seed, "images", lost.keys())
    kept, held = ([row_of[place] for place in side.tolist() if place in row_of] for side in sides)
    return np.array(kept, dtype=np.int64), np.array(held, dtype=np.int64)


def hold_out_rows_by_place(
    digests: Sequence[bytes | str],
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    seed: int,
    what: str = "examples",
) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices to train on and indices held out, both ascending: 15 % of each class, at
    least one of each.

    Exact copies (rows of equal digest) stay on the same side, or the held-out figures would be
    flattered.

    Raises:
        DataError: a class has fewer than two different examples.
    """
    return _hold_out(grouped(digests), labels, classes, seed, what)


def _hold_out(
    copies: list[list[int]],
    labels: Sequence[int],
    classes: Sequence[str],
    seed: int,
    what: str,
    lost: Collection[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    kept: list[int] = []
    held: list[int] = []
    by_class: dict[int, list[list[int]]] = {}
    for rows in copies:
        by_class.setdefault(labels[rows[0]], []).append(rows)
    for number, name in enumerate(classes):
        of_class = by_class.get(number, [])
        usable = [rows for rows in of_class if rows[0] not in lost]
        if len(usable) < 2:
            raise DataError(
                f"A class needs at least two different {what}, one to train on and one held out",
                got=f"{len(usable)} in class {name!r}",
                remedy=f"Add {what}, remove the class, or give a test set of your own",
            )
        sides = _divided(of_class, seed)
        # A side of only unreadable files.
        if lost and any(set(rows) <= set(lost) for rows in sides):
            sides = _divided(usable, seed)
        kept += sides[0]
        held += sides[1]
    return np.array(sorted(kept), dtype=np.int64), np.array(sorted(held), dtype=np.int64)


def _divided(groups: list[list[int]], seed: int) -> tuple[list[int], list[int]]:
    """Returns the rows kept and the rows held out of one class, from its groups of copies."""
    ordered = sorted(groups, key=lambda rows: counter_hash(_SPLIT, seed, rows[0]))
    wanted = max(1, round(HOLD_OUT_SHARE * sum(map(len, ordered))))
    kept: list[int] = []
    held: list[int] = []
    for position, rows in enumerate(ordered):
        last_group = position == len(ordered) - 1 and len(kept) == 0
        (held if len(held) < wanted and not last_group else kept).extend(rows)
    return kept, held
