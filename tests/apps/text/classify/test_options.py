"""The options of classifying texts."""

import pytest

from volano.apps.text.classify.options import ClassifyOptions
from volano.errors import UsageError


def test_a_path_is_needed():
    with pytest.raises(UsageError, match="`classify` needs a path"):
        ClassifyOptions()


def test_a_run_of_earlier_versions_is_one_of_classes():
    kept = {"path": "/texts.csv", "held_out_by": "content"}
    assert ClassifyOptions.from_json(kept).target == "classes"
    assert ClassifyOptions(path="texts.csv").target is None


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"target": "boxes"}, "`target` must be one of classes, labels, numbers"),
        ({"target_columns": "a,,b"}, "`target_columns` must name different columns"),
        ({"target_columns": "a,a"}, "`target_columns` must name different columns"),
        ({"tune": "head"}, "`tune` must come with a pretrained network"),
        ({"epochs": 3}, "`epochs` must come with a pretrained encoder"),
        ({"batch_size": 8}, "`batch_size` must come with a pretrained encoder"),
    ],
)
def test_what_cannot_be(options, rule):
    with pytest.raises(UsageError, match=rule):
        ClassifyOptions(path="texts.csv", **options)


def test_passes_over_the_texts_are_for_an_encoder():
    options = ClassifyOptions(path="texts.csv", from_="hf:bert", epochs=3, batch_size=8)
    again = ClassifyOptions.from_json(options.to_json())
    assert (again.epochs, again.batch_size) == (3, 8)
