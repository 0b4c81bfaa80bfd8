"""The description of a classifier, and networks of a person's own behind it."""

import dataclasses

import pytest
import torch
from torch import nn

from volano.apps.image.model_spec import ClassifierSpec, check_classifier, make_classifier
from volano.errors import CheckpointError, TaskError

SPEC = ClassifierSpec(
    classes=("a", "b", "c"), channels=1, image_size=8, mean=(100.0,), std=(50.0,), size="thin",
    model_reference=None, flip=False, translate=1,
)  # fmt: skip
OWN = dataclasses.replace(SPEC, size=None, model_reference="mine:net")


def test_it_comes_back():
    assert ClassifierSpec.from_json(SPEC.to_json()) == SPEC
    with pytest.raises(CheckpointError, match="schema version 1; got 9"):
        ClassifierSpec.from_json({**SPEC.to_json(), "schema_version": 9})
    with pytest.raises(CheckpointError, match="must describe a classifier"):
        ClassifierSpec.from_json({"schema_version": 1, "classes": ["a"]})


def test_a_network_of_ones_own_sees_normalized_pixels_and_is_told_what_it_asks_for():
    asked = {}

    def make(num_classes, image_size):
        asked.update(num_classes=num_classes, image_size=image_size)
        return nn.Flatten()

    images = torch.tensor([100, 150], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    seen = make_classifier(OWN, make)(images)
    assert asked == {"num_classes": 3, "image_size": 8}
    assert torch.equal(seen, torch.tensor([[0.0], [1.0]]).expand(2, 64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 3, "that returns an nn.Module.*got int"),
        (lambda: nn.Flatten(), r"logits \[2, 3\]; got \[2, 64\]"),
        (lambda: nn.Linear(5, 3), r"logits \[2, 3\]; got RuntimeError.*`debug` shows where"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LSTM(64, 3)), r"logits \[2, 3\]; got tuple"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_the_run(make, message):
    state = torch.get_rng_state()
    with pytest.raises(TaskError, match=f"(?s){message}"):
        check_classifier(OWN, make)
    assert torch.equal(torch.get_rng_state(), state)
    check_classifier(SPEC, None)
