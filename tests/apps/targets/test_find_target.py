"""The target of data and of a run's folder."""

from types import SimpleNamespace

import numpy as np
import pytest

from volano.apps.targets.classes import OneClass
from volano.apps.targets.find_target import (
    figures_in_words,
    target_class,
    target_of_data,
    target_of_run,
)
from volano.apps.targets.labels import Labels
from volano.apps.targets.numbers import Numbers
from volano.errors import CheckpointError


@pytest.mark.parametrize(
    ("kind", "labels", "expected"),
    [
        ("classes", np.array([0, 1]), OneClass),
        ("labels", np.array([[0, 1], [1, 0]]), Labels),
        ("numbers", np.array([[0.5, 1], [2, 3]]), Numbers),
    ],
)
@pytest.mark.parametrize("columns", [(), ("x", "y")])
def test_it_is_kept_and_read_back(kind, labels, expected, columns):
    train = SimpleNamespace(kind=kind, classes=("a", "b"), labels=labels)
    target = target_of_data(train, columns)
    assert type(target) is expected is target_class(kind)
    assert target_of_run(target.names, target.to_json()) == target


def test_classes_are_what_is_not_known_yet():
    assert target_class(None) is OneClass
    figures = {"test_accuracy": 0.5, "num_test": 4, "baseline_accuracy": 0.25}
    assert figures_in_words(figures, "texts")[0].startswith("test accuracy 0.5000 on 4 texts")
    figures |= {"cross_validated": 0.75, "cross_validated_spread": 0.1}
    assert figures_in_words(figures, "texts")[1] == (
        "accuracy of a linear head, cross-validated on the training examples: 0.750 +- 0.100"
    )


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "boxes", "columns": []},
        {"kind": "numbers", "columns": []},
        {"kind": "numbers", "columns": [], "means": [1.0], "deviations": [1.0, 2.0]},
        {"kind": "numbers", "columns": [], "means": [1.0, "x"], "deviations": [1.0, 2.0]},
        {"kind": "numbers", "columns": [], "means": [1.0, 1e999], "deviations": [1.0, 2.0]},
        {"kind": "labels", "columns": None},
        [],
    ],
)
def test_what_others_wrote_is_checked(value):
    with pytest.raises(CheckpointError, match="must describe its target: classes"):
        target_of_run(("a", "b"), value)
