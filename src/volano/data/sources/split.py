"""Holding out a part of a labelled set when the source names no split."""

from __future__ import annotations

import hashlib

import numpy as np

from volano.data.counters import counter_hash
from volano.data.sources.image_files import ImageFiles
from volano.data.sources.images import LabelledImages
from volano.errors import DataError

HOLD_OUT_SHARE = 0.15
_SPLIT = 21  # first counter of the hashes


def hold_out(images: LabelledImages, *, seed: int, share: float = HOLD_OUT_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and indices held out, both ascending: ``share`` of each class, at least one of each.

    Exact copies of a picture stay on the same side, or the held-out figures would be flattered.

    Raises:
        DataError: a class has fewer than two different images.
    """
    kept: list[int] = []
    held: list[int] = []
    by_class: dict[int, list[list[int]]] = {}
    labels = images.labels.tolist()
    for rows in _copies(images):
        by_class.setdefault(labels[rows[0]], []).append(rows)
    for number, name in enumerate(images.classes):
        of_class = by_class.get(number, [])
        if len(of_class) < 2:
            raise DataError(
                "A class has at least two different images, one to train on and one held out",
                got=f"{len(of_class)} in class {name!r}",
                remedy="Add images, remove the class, or give a val/ or test/ folder of your own",
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


def _copies(images: LabelledImages) -> list[list[int]]:
    if isinstance(images.images, ImageFiles):
        return images.images.copies()
    groups: dict[bytes, list[int]] = {}
    for row, pixels in enumerate(images.images.numpy()):
        groups.setdefault(hashlib.blake2b(pixels.tobytes(), digest_size=16).digest(), []).append(row)
    return list(groups.values())
