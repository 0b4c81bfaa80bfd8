"""Figures of a classifier, against those worked out by hand."""

import pytest
import torch

from volano.apps.application import Table
from volano.apps.classification import classification_scores, per_class_table

# Named: 0 0 1 1; true: 0 1 1 1; nobody names or is of the third class.
LOGITS = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
LABELS = torch.tensor([0, 1, 1, 1])


@pytest.fixture
def scores():
    return classification_scores(LOGITS, LABELS, ("a", "b", "c"))


def test_figures_are_those_of_the_counts(scores):
    assert scores["num_examples"] == 4
    assert scores["accuracy"] == 0.75
    assert scores["baseline_accuracy"] == 0.75  # always "b"
    assert scores["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert scores["classes"] == ["a", "b", "c"]
    a, b = scores["per_class"]["a"], scores["per_class"]["b"]
    assert (a["precision"], a["recall"], a["support"]) == (0.5, 1.0, 1)
    assert (b["precision"], b["support"]) == (1.0, 3)
    assert b["recall"] == pytest.approx(2 / 3)
    assert b["f1"] == pytest.approx(0.8)


def test_a_class_of_which_there_is_none_has_zeros_and_no_warning(scores):
    assert scores["per_class"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_a_table_for_a_person(scores):
    table, accuracy = per_class_table({**scores, "origin": "a folder"}, "texts")
    assert isinstance(table, Table)
    assert table.title == "4 texts of a folder"
    assert table.columns == ("class", "texts", "precision", "recall", "F1")
    assert table.rows[0] == ("a", 1, "0.5000", "1.0000", "0.6667")
    assert (
        accuracy == "accuracy 0.7500   (95 %: 0.3006 to 0.9544; always the commonest class: 0.7500)"
    )
