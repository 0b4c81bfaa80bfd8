"""Holding out a part of a labelled set when the source names no split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from volano.data.counters import counter_hash
from volano.data.sources.image_files import ImageFiles
from volano.data.sources.images import LabelledImages
from volano.errors import DataError

HOLD_OUT_SHARE = 0.15
_SPLIT = 21  # first counter of the hashes


def hold_out(images: LabelledImages, *, seed: int, share: float = HOLD_OUT_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """:func:`hold_out_rows` of pictures; copies are equal in every pixel.

    Raises:
        DataError: a class has fewer than two different images.
    """
    if isinstance(images.images, ImageFiles):
        copies = images.images.copies()
    else:
        copies = _grouped([hashlib.blake2b(p.tobytes(), digest_size=16).digest() for p in images.images.numpy()])
    return _hold_out(copies, images.labels.tolist(), images.classes, seed, share, "images")


def hold_out_rows(
    digests: Sequence[bytes],
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    seed: int,
    share: float = HOLD_OUT_SHARE,
    what: str = "examples",
) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and indices held out, both ascending: ``share`` of each class, at least one of each.

    Exact copies (rows of equal digest) stay on the same side, or the held-out figures would be flattered.

    Raises:
        DataError: a class has fewer than two different examples.
    """
    return _hold_out(_grouped(digests), labels, classes, seed, share, what)


def _hold_out(
    copies: list[list[int]], labels: Sequence[int], classes: Sequence[str], seed: int, share: float, what: str
) -> tuple[np.ndarray, np.ndarray]:
    kept: list[int] = []
    held: list[int] = []
    by_class: dict[int, list[list[int]]] = {}
    for rows in copies:
        by_class.setdefault(labels[rows[0]], []).append(rows)
    for number, name in enumerate(classes):
        of_class = by_class.get(number, [])
        if len(of_class) < 2:
            raise DataError(
                f"A class has at least two different {what}, one to train on and one held out",
                got=f"{len(of_class)} in class {name!r}",
                remedy=f"Add {what}, remove the class, or give a test set of your own",
            )
        of_class.sort(key=lambda rows: counter_hash(_SPLIT, seed, rows[0]))
        wanted = max(1, round(share * sum(map(len, of_class))))
        taken = 0
        for position, rows in enumerate(of_class):
            last_group = position == len(of_class) - 1 and taken == position
            if taken < wanted and not last_group:
                held += rows
                taken += len(rows)
            else:
                kept += rows
    return np.array(sorted(kept), dtype=np.int64), np.array(sorted(held), dtype=np.int64)


def _grouped(digests: Sequence[bytes]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for row, digest in enumerate(digests):
        groups.setdefault(digest, []).append(row)
    return list(groups.values())
