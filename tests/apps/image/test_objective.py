"""The objective of a classifier beside torch."""

import pytest
import torch

from volano.apps.image.objective import Classification, balanced_weights


class TestObjective:
    def test_training_smooths_and_weighs_evaluation_does_not(self, digits):
        pixels, labels = digits
        model = torch.nn.Linear(64, 10)
        weights = tuple(float(number + 1) for number in range(10))
        objective = Classification(label_smoothing=0.1, class_weights=weights)
        loss = objective(model.train(), (pixels[:50], labels[:50]))
        expected = torch.nn.functional.cross_entropy(
            model(pixels[:50]), labels[:50], weight=torch.tensor(weights), label_smoothing=0.1
        )
        assert (loss.total / loss.weight).item() == pytest.approx(expected.item(), rel=1e-6)
        plain = objective(model.eval(), (pixels[:50], labels[:50]))
        expected = torch.nn.functional.cross_entropy(model(pixels[:50]), labels[:50])
        assert (plain.total / plain.weight).item() == pytest.approx(expected.item(), rel=1e-6)

    def test_weights_only_where_the_classes_are_far_apart(self):
        assert balanced_weights(torch.tensor([0] * 5 + [1]), 2) is None
        assert balanced_weights(torch.tensor([0] * 18 + [1] * 2), 2) == pytest.approx(
            (20 / 36, 5.0)
        )
