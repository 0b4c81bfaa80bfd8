"""The texts of a run's source, read again."""

import pytest

from volano.apps.text.classify.model_spec import ClassesSpec
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.classify.splits import read_again, together
from volano.errors import UsageError


def test_a_source_is_read_as_being_of_the_runs_classes(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\none,a\ntwo,b\nthree,c\n")
    spec = ClassesSpec(classes=("a", "b"), kept="bag of n-grams", candidates={}, num_buckets=8)
    options = ClassifyOptions(path=str(tmp_path / "t.csv"))
    every = together(read_again(options, spec))
    assert (list(every.texts), every.classes) == (["one", "two"], ("a", "b"))
    with pytest.raises(UsageError, match="which is gone"):
        read_again(ClassifyOptions(path=str(tmp_path / "u.csv")), spec)
