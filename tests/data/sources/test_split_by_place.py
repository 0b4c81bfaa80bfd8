"""Runs that were begun before membership was kept keep their split."""

import torch

from volano.data.sources import BY_PLACE, LabelledImages, hold_out, hold_out_rows


def test_images_are_held_out_as_before():
    images = LabelledImages(
        images=torch.arange(20, dtype=torch.int32).view(torch.uint8).view(-1, 1, 2, 2),
        labels=torch.tensor([0] * 10 + [1] * 10),
        classes=("0", "1"),
        names=("",) * 20,
    )
    kept, held = hold_out(images, seed=3, by=BY_PLACE)
    assert held.tolist() == [0, 2, 10, 15]  # what version 0.1 gave
    assert sorted([*kept, *held]) == list(range(20))


def test_rows_are_held_out_with_their_copies():
    keys = ["a", "a", "b", "c", "d", "e", "f", "f"]
    kept, held = hold_out_rows(keys, [0] * 8, ("x",), seed=1, by=BY_PLACE)
    assert not {keys[row] for row in kept} & {keys[row] for row in held}
    assert sorted([*kept, *held]) == list(range(8))
