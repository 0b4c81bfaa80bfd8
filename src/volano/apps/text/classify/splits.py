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


def held_back(
    train: LabelledTexts, valid: LabelledTexts | None, options: ClassifyOptions
) -> tuple[LabelledTexts, np.ndarray, tuple[str, ...]]:
    """Returns the training texts, with those of a split val; the rows of them that are held back,
    int64; and a notice. They choose between classifiers and are trained on after that; or with an
    encoder the best of its weights, if those are kept, and are not trained on."""
    is_best = options.from_ is not None and options.keep == "best"
    if valid is not None:
        what = "are held back to choose, and trained on after that"
        if options.from_ is not None:
            what = "choose the best weights" if is_best else "are trained on: none has a say"
        rows = np.arange(len(train), len(train) + len(valid))
        return train.with_more(valid), rows, (f"the {len(rows):,} texts of split val {what}",)
    rows = np.arange(len(train))
    if is_best:  # of each class some, and no copy of them is trained on
        kept, _ = hold_out_rows(
            [member.key for member in train.members()], train.labels, train.classes,
            seed=options.seed + 1, what="texts to train on", kind=train.kind,
        )  # fmt: skip
        return train, np.setdiff1d(rows, kept), ()
    order = permutation(options.seed, 0, len(train))
    return train, np.sort(order[: max(1, round(_CHOICE_SHARE * len(train)))]), ()


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
