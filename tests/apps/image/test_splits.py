"""Which images are trained on, looked at and tested."""

import torch

from volano.apps.image.splits import some_of, with_own_validation
from volano.data.sources import read_image_sets


def test_the_best_weights_are_chosen_by_images_that_are_neither_trained_on_nor_tested():
    images = read_image_sets(None).train
    train, valid, test = with_own_validation(images.select(range(900)), images.select([1000]), 0)
    assert len(train) + len(valid) <= 900
    assert not set(train.names) & set(valid.names)
    assert torch.bincount(valid.labels).min() > 0
    assert test.names == ("digit-1000",)


def test_some_are_taken_evenly():
    images = read_image_sets(None).train.select(range(10))
    assert some_of(images, 3).names == ("digit-0", "digit-4", "digit-9")
    assert some_of(images, None) is images
