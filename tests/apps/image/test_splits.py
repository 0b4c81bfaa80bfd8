"""Which images are trained on, looked at and tested."""

import torch

from volano.apps.image.splits import copies_left_out, some_of, with_own_validation
from volano.data.sources import ImageSets, read_image_sets


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


def test_copies_are_what_no_part_holds():
    images = read_image_sets(None).train.select(range(10))
    sets = ImageSets(train=images, valid=None, test=None, origin="x")
    parts = [images.select(range(5)), images.select([5, 6])]
    assert copies_left_out(sets, parts) == ("left out: 3 exact copies of held-out images",)
    assert copies_left_out(sets, [*parts, images.select([7, 8, 9])]) == ()
