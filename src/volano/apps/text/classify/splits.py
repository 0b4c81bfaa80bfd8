"""The texts of a run's source, read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from volano.apps.text.classify.model_spec import ClassesSpec
from volano.apps.text.classify.options import ClassifyOptions
from volano.data import permutation
from volano.data.sources import LabelledTexts, LabelledTextSets, hold_out_rows, read_labelled_texts
from volano.running.checks import check_data_is_there

# Of the training texts, held back to choose between classifiers.
_CHOICE_SHARE = 0.1


def split_texts(
    sets: LabelledTextSets, options: ClassifyOptions
) -> tuple[LabelledTexts, LabelledTexts]:
    """Returns texts to train on and to test on, held out here if the source names none."""
    train = sets.train
    if sets.test is not None:
        return train, sets.test
    keys = [member.key for member in train.members()]
    kept, held = hold_out_rows(
        keys, train.labels, train.classes, seed=options.seed, what="texts", by=options.held_out_by,
        kind=train.kind,
    )  # fmt: skip
    return train.select(kept), train.select(held)


def held_back(
    train: LabelledTexts, valid: LabelledTexts | None, options: ClassifyOptions
) -> tuple[LabelledTexts, np.ndarray, tuple[str, ...]]:
    """Returns the training texts, with those of a split val; the rows of them that are held back,
    int64; and a notice. They choose between classifiers and are trained on after that; or with an
    encoder the best of its weights, if those are kept, and are not trained on. Where an encoder's
    last weights are kept, those of a split val alone are named."""
    is_best = options.from_ is not None and options.keep == "best"
    if valid is not None:
        what = "are held back to choose, and trained on after that"
        if options.from_ is not None:
            what = "choose the best weights" if is_best else "are trained on: none has a say"
        rows = np.arange(len(train), len(train) + len(valid))
        return train.with_more(valid), rows, (f"the {len(rows):,} texts of split val {what}",)
    if options.from_ is not None:
        none = np.zeros(0, dtype=np.int64)
        return train, some_held_back(train, options.seed) if is_best else none, ()
    order = permutation(options.seed, 0, len(train))
    return train, np.sort(order[: max(1, round(_CHOICE_SHARE * len(train)))]), ()


def some_held_back(train: LabelledTexts, seed: int) -> np.ndarray:
    """Returns rows to compare by, int64: some of each class, with all their copies.

    Raises:
        DataError: a class has fewer than two different texts.
    """
    kept, _ = hold_out_rows(
        [member.key for member in train.members()], train.labels, train.classes, seed=seed + 1,
        what="texts to train on", kind=train.kind,
    )  # fmt: skip
    return np.setdiff1d(np.arange(len(train)), kept)


def read_again(options: ClassifyOptions, spec: ClassesSpec) -> LabelledTextSets:
    """Reads a run's source, whatever it has become, as being of the run's classes."""
    check_data_is_there(options.path, "texts")
    assert options.path is not None
    return read_labelled_texts(
        Path(options.path), classes=spec.classes, least_classes=1, leaves_out_unknown=True,
        target=spec.answers.format(leaves_out_unknown=True),
    )  # fmt: skip


def together(sets: LabelledTextSets) -> LabelledTexts:
    """Returns the texts of all splits."""
    every = sets.train
    for more in (sets.valid, sets.test):
        every = every if more is None else every.with_more(more)
    return every
