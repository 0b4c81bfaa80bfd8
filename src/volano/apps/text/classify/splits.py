"""The texts of a run's source, read again."""

from __future__ import annotations

from pathlib import Path

from volano.apps.text.classify.model_spec import ClassesSpec
from volano.apps.text.classify.options import ClassifyOptions
from volano.data.sources import LabelledTexts, LabelledTextSets, read_labelled_texts
from volano.running.checks import check_data_is_there


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
