"""Predictions over sets of images."""

import torch
from torch import nn

from volano.apps.image.scores import Views, predict_logits
from volano.device import Device


class LeftAndRight(nn.Module):
    """The mean brightness of the left and of the right half."""

    def forward(self, images):
        pixels = images.float()
        return torch.stack([pixels[..., :2].mean((1, 2, 3)), pixels[..., 2:].mean((1, 2, 3))], 1)


def test_more_views_of_those_that_are_unsure():
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    images[..., :2] = 100
    views = Views(flip=True, translate=0, unsure=lambda outputs: torch.tensor([False, True]))
    found = predict_logits(LeftAndRight(), images, Device("cpu"), views)
    assert found.tolist() == [[100, 0], [50, 50]]
