"""One class of an example: what it was before there were other targets; its figures against those
worked out by hand."""

from types import SimpleNamespace

import pytest
import torch

from volano.apps.application import Table
from volano.apps.image.objective import Classification
from volano.apps.targets.classes import OneClass

TARGET, THREE = OneClass(names=("a", "b")), OneClass(names=("a", "b", "c"))


def test_the_objective_is_the_applications_own():
    own = Classification(label_smoothing=0.1)
    assert TARGET.objective(own) is own
    labels = torch.tensor([0, 1])
    assert TARGET.wanted(labels) is labels


def test_its_own_loss_is_the_cross_entropy():
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    loss = TARGET.loss(logits, labels)
    assert loss.total == torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def test_more_views_are_for_unsure_images():
    assert TARGET.is_unsure(torch.tensor([[5.0, 0], [0.1, 0]])).tolist() == [False, True]


def test_nothing_more_is_kept_of_it():
    assert TARGET.to_json() is None


# Named: 0 0 1 1; true: 0 1 1 1; nobody names or is of the third class.
LOGITS = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
LABELS = torch.tensor([0, 1, 1, 1])


@pytest.fixture
def scores():
    return THREE.scores(LOGITS, LABELS)


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
    table, accuracy = THREE.tables({**scores, "origin": "a folder"}, "texts")
    assert isinstance(table, Table)
    assert table.title == "4 texts of a folder"
    assert table.columns == ("class", "texts", "precision", "recall", "F1")
    assert table.rows[0] == ("a", 1, "0.5000", "1.0000", "0.6667")
    assert (
        accuracy == "accuracy 0.7500   (95 %: 0.3006 to 0.9544; always the commonest class: 0.7500)"
    )


def parts(**labels):
    return {name: SimpleNamespace(labels=torch.tensor(values)) for name, values in labels.items()}


def test_what_was_read_in_a_line():
    read = parts(train=[0, 0, 1], test=[1, 1])
    assert TARGET.data_in_words("images", read, is_held_out=True) == (
        "images: 3 to train on and 2 held out, of 2 classes: a 2 + 0, b 1 + 2"
    )
    three = parts(train=[0, 1], valid=[0], test=[1])
    assert TARGET.data_in_words("texts", three, is_held_out=False) == (
        "texts: 2 to train on and 1 to evaluate on meanwhile and 1 to test on, of 2 classes: "
        "a 1 + 1 + 0, b 1 + 0 + 1"
    )
    assert OneClass(names=()).data_in_words("clips", read, is_held_out=True) == (
        "clips: 3 to train on and 2 held out"
    )


def test_many_classes_are_told_by_the_rarest_and_the_commonest():
    names = tuple(f"k{number}" for number in range(100))
    read = parts(train=[*range(100), 7, 7], test=[3])
    assert OneClass(names=names).data_in_words("images", read, is_held_out=True) == (
        "images: 102 to train on and 1 held out, of 100 classes with 1 (k0) to 3 (k7) to train on"
    )
