"""The texts of a run's source, read again."""

import numpy as np
import pytest

from volano.apps.text.classify.model_spec import ClassesSpec
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.classify.splits import held_back, read_again, together
from volano.data.sources import LabelledTexts
from volano.errors import UsageError


def test_a_source_is_read_as_being_of_the_runs_classes(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\none,a\ntwo,b\nthree,c\n")
    spec = ClassesSpec(classes=("a", "b"), kept="bag of n-grams", candidates={}, num_buckets=8)
    options = ClassifyOptions(path=str(tmp_path / "t.csv"))
    every = together(read_again(options, spec))
    assert (list(every.texts), every.classes) == (["one", "two"], ("a", "b"))
    with pytest.raises(UsageError, match="which is gone"):
        read_again(ClassifyOptions(path=str(tmp_path / "u.csv")), spec)


def texts_of(*labels):
    return LabelledTexts(
        texts=tuple(f"text {number // 2}" for number in range(len(labels))),
        labels=np.array(labels), classes=("a", "b"), names=tuple(map(str, range(len(labels)))),
    )  # fmt: skip


def test_the_best_weights_are_chosen_by_texts_of_each_class():
    train = texts_of(*[0] * 8, *[1] * 8)
    options = ClassifyOptions(path="t.csv", from_="hf:x", keep="best")
    _, rows, said = held_back(train, None, options)
    assert set(train.labels[rows]) == {0, 1}
    assert said == ()
    kept = {train.texts[row] for row in np.setdiff1d(np.arange(16), rows)}
    assert kept.isdisjoint(train.texts[row] for row in rows)  # nor copies of them


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "are held back to choose, and trained on after that"),
        ({"from_": "hf:x"}, "are trained on: none has a say"),
        ({"from_": "hf:x", "keep": "best"}, "choose the best weights"),
    ],
)
def test_what_becomes_of_a_split_val_is_said(options, said):
    train, valid = texts_of(0, 0, 1, 1), texts_of(0, 1)
    every, rows, notices = held_back(train, valid, ClassifyOptions(path="t.csv", **options))
    assert (len(every), rows.tolist()) == (6, [4, 5])
    assert notices == (f"the 2 texts of split val {said}",)
