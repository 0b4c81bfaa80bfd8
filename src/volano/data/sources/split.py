"""Holds out a part of a labelled set if the source names no split.

Each example is held out or not by a hash of its own content and the seed, whatever else there is: a
new file, another order of rows or another name moves no other example to the other side. So the
share of a class is that of so many throws of a die, 15 % on the average: the price of the former.
Only where the die gives a class none or more than twice its share is it set right, by the examples
whose hashes are nearest; there alone a new example can move one other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from volano.data.counters import counter_hash
from volano.data.sources.image.images import LabelledImages
from volano.data.sources.split_by_place import hold_out_by_place, hold_out_rows_by_place
from volano.data.sources.split_record import HOLD_OUT_SHARE, grouped
from volano.data.sources.targets import CLASSES, LABELS
from volano.errors import DataError

BY_CONTENT, BY_PLACE = "content", "place"
_SPLIT = 23  # first counter of the hashes


def hold_out(
    images: LabelledImages, *, seed: int, by: str = BY_CONTENT
) -> tuple[np.ndarray, np.ndarray]:
    """Splits pictures by :func:`hold_out_rows`; copies are equal in every pixel, or in every byte
    if they stay in files. A file that cannot be read moves no other.

    Raises:
        DataError: a class has fewer than two different images.
    """
    if by == BY_PLACE:
        return hold_out_by_place(images, seed=seed)
    keys = [member.key for member in images.members()]
    return _of_targets(
        images.copies(), keys, images.labels.numpy(), images.classes, images.kind, seed=seed,
        what="images",
    )  # fmt: skip


def hold_out_rows(
    keys: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    *,
    seed: int,
    what: str = "examples",
    by: str = BY_CONTENT,
    kind: str = CLASSES,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices to train on and indices held out, both ascending: about 15 % of each
    class, at least one of each.

    Exact copies (rows of equal key) count as one, or a text that stands there a hundred times would
    decide the figures: all are trained on, or one is held out and the others are left out. No copy
    of a held-out example is trained on. Of several labels and numbers 15 % of all are held out,
    and no label is held out alone.

    Raises:
        DataError: a class has fewer than two different examples.
    """
    if by == BY_PLACE:
        rows = np.asarray(labels).tolist()
        return hold_out_rows_by_place(keys, rows, classes, seed=seed, what=what)
    return _of_targets(grouped(keys), keys, np.asarray(labels), classes, kind, seed=seed, what=what)


def _of_targets(
    copies: Sequence[Sequence[int]],
    keys: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    kind: str,
    *,
    seed: int,
    what: str,
) -> tuple[np.ndarray, np.ndarray]:
    if kind == CLASSES:
        return hold_out_groups(copies, keys, labels.tolist(), classes, seed=seed, what=what)
    kept, held = hold_out_groups(copies, keys, [0] * len(labels), ("",), seed=seed, what=what)
    if kind == LABELS:
        # An example that has a label as the only one is trained on.
        is_lost = (labels[held] > labels[kept].max(0)).any(1)
        kept, held = np.sort(np.concatenate([kept, held[is_lost]])), held[~is_lost]
        if not len(held):
            raise DataError(
                f"Some {what} must have labels that others have too, so that they can be held out",
                got=f"none of {len(labels):,}",
                remedy=f"Add {what}, or give a test set of your own",
            )
    return kept, held


def hold_out_groups(
    copies: Sequence[Sequence[int]],
    keys: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    seed: int,
    what: str = "examples",
    least: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits as :func:`hold_out_rows`, with the rows of ``copies`` together.

    Args:
        copies: the rows in groups of equal examples.
        keys: the key of each row's content.
        labels: the class of each row. A group with several is of the first of them.
        classes: the names of the classes.
        seed: the seed of the hashes.
        what: what the rows are, in words.
        least: the least number of groups of a class; of a class of one, none is held out.

    Raises:
        DataError: a class has fewer.
    """
    by_class: dict[int, list[tuple[int, Sequence[int]]]] = {}
    for rows in copies:
        chance = min(counter_hash(_SPLIT, seed, int(keys[row], 16)) for row in rows)
        by_class.setdefault(min(labels[row] for row in rows), []).append((chance, rows))
    kept: list[int] = []
    held: list[int] = []
    for number, name in enumerate(classes):
        groups = sorted(by_class.get(number, []), key=lambda group: group[0])
        if len(groups) < least:
            raise DataError(
                f"A class needs at least two different {what}, one to train on and one held out"
                if name
                else f"There must be at least two different {what}",
                got=f"{len(groups)} in class {name!r}" if name else len(groups),
                remedy=f"Add {what}, remove the class, or give a test set of your own",
            )
        num_held = _num_held([chance for chance, _ in groups])
        held += [min(rows, key=lambda row: (labels[row], row)) for _, rows in groups[:num_held]]
        kept += [row for _, rows in groups[num_held:] for row in rows]
    return np.array(sorted(kept), dtype=np.int64), np.array(sorted(held), dtype=np.int64)


def _num_held(chances: Sequence[int]) -> int:
    """Returns how many of a class are held out: those below the share, but at least one, at most
    twice the share, and never all."""
    most = min(max(0, len(chances) - 1), max(1, round(2 * HOLD_OUT_SHARE * len(chances))))
    return min(most, max(1, sum(chance < HOLD_OUT_SHARE * 2**64 for chance in chances)))
