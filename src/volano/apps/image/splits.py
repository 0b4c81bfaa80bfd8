"""The images of a source and of a run: which of them are trained on, looked at and tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from volano.apps.image.model_spec import ClassifierSpec
from volano.apps.image.options import ImageOptions
from volano.data.sources import (
    BY_CONTENT,
    TEST,
    VALID,
    ImageFiles,
    ImageSets,
    LabelledImages,
    SplitMember,
    SplitRecord,
    hold_out,
    picked,
    read_image_sets,
)
from volano.running.checks import check_data_is_there
from volano.training import RunFolder


def split_sets(
    sets: ImageSets, seed: int, by: str = BY_CONTENT
) -> tuple[LabelledImages, LabelledImages, LabelledImages, bool]:
    """Returns images to train on, to look at during the run and to test on, and whether the last
    were split off here."""
    test = sets.test if sets.test is not None else sets.valid
    if test is not None:
        return sets.train, sets.valid if sets.valid is not None else test, test, False
    kept, held = hold_out(sets.train, seed=seed, by=by)
    test = sets.train.select(held)
    return sets.train.select(kept), test, test, True


def with_own_validation(
    train: LabelledImages, test: LabelledImages, seed: int
) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """Returns images to train on, to choose the best weights by, and to test on: the second are
    held out of the training images, so that no test image has a say."""
    kept, held = hold_out(train, seed=seed + 1)
    return train.select(kept), train.select(held), test


def some_of(images: LabelledImages, count: int | None) -> LabelledImages:
    """Returns so many of the images, evenly spaced; None is all of them."""
    if count is None or count >= len(images):
        return images
    return images.select(np.linspace(0, len(images) - 1, count).round().astype(int))


def copies_left_out(sets: ImageSets, parts: Iterable[LabelledImages]) -> tuple[str, ...]:
    """Says how many copies of held-out images are in none of the parts of a source's images."""
    num = len(sets.train) - sum(map(len, parts))
    return (f"left out: {num:,} exact copies of held-out images",) if num > 0 else ()


def parts_in(sets: ImageSets) -> list[LabelledImages]:
    """Returns the splits that a source has."""
    return [part for part in (sets.train, sets.valid, sets.test) if part is not None]


def members_of_sets(sets: ImageSets) -> list[SplitMember]:
    """Returns all images of a source as members of splits."""
    return [member for part in parts_in(sets) for member in part.members()]


def read_again(options: ImageOptions, folder: RunFolder) -> ImageSets:
    """Reads a run's source in the run's own format, whatever it has become."""
    check_data_is_there(options.path, "images")
    spec = ClassifierSpec.of_run(folder)
    return read_image_sets(
        None if options.path is None else Path(options.path),
        spec.pixel_format,
        least_classes=1,
        in_files=options.in_files,
        classes=spec.classes,
        target=spec.answers.format(leaves_out_unknown=True),
    )


def recorded_sets(sets: ImageSets, record: SplitRecord) -> dict[str, LabelledImages]:
    """Returns the images of each split of a run; without a validation set of its own, that is the
    test set."""
    found = {split: picked(parts_in(sets), record[split], record.classes) for split in record.parts}
    return {VALID: found[TEST], **found}


def with_cache(sets: ImageSets, cache: str | None) -> ImageSets:
    """Returns the same images, those in files with a cache in a folder."""
    if cache is None:
        return sets
    folder = Path(cache)
    parts = {name: getattr(sets, name) for name in ("train", "valid", "test")}
    lazy = {
        name: part
        for name, part in parts.items()
        if part is not None and isinstance(part.images, ImageFiles)
    }
    if not lazy:
        notice = "image_cache has no effect: the decoded images fit into memory"
        return dataclasses.replace(sets, notices=(*sets.notices, notice))
    cached: dict[str, Any] = {
        name: dataclasses.replace(part, images=part.images.cached(folder))
        for name, part in lazy.items()
    }
    notices = (
        *(text for text in sets.notices if text != sets.decoding),
        f"images are decoded once, into {folder}",
    )
    return dataclasses.replace(sets, **cached, notices=notices)
