"""One class of an example: what it was before there were other targets."""

import torch

from volano.apps.image.objective import Classification
from volano.apps.targets.classes import OneClass

TARGET = OneClass(names=("a", "b"))


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
