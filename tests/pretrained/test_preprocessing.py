"""The input of a pretrained network, from whatever states it."""

import pytest
import torch

from volano.errors import UsageError
from volano.pretrained.preprocessing import Preprocessing


def test_means_of_bytes_and_of_one_are_told_apart():
    of_bytes = Preprocessing.of({"mean": (127,) * 3, "std": (128,) * 3}, "x")
    assert (of_bytes.mean, of_bytes.std) == ((127.0,) * 3, (128.0,) * 3)
    of_one = Preprocessing.of({"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": (3, 32, 32)}, "x")
    assert (of_one.mean, of_one.std, of_one.size) == ((127.5,) * 3, (63.75,) * 3, 32)
    raw = Preprocessing.of({"mean": (0,) * 3, "std": (1,) * 3, "largest": 255}, "x")
    assert (raw.mean, raw.std) == ((0.0,) * 3, (1.0,) * 3)


def test_without_a_statement_it_is_that_of_imagenet():
    assert Preprocessing.of({}, "x").in_words() == (
        "224 px, bilinear, mean 123.7 116.3 103.5 and std 58.4 57.12 57.38 of bytes"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"means": (1,)}, "got 'means' of x. Did you mean mean"),
        ({"std": (0.0,) * 3}, "above 0"),
        ({"mean": (1, 2)}, "1 or 3 channels"),
        ({"interpolation": "cubic spline"}, "one of nearest"),
        ({"size": 4}, "from 8 on"),
        ({"fit": "crop"}, "The fit must be one of cut, pad, squeeze; got 'crop' of x"),
        ({"size": "large"}, "from 8 on"),
        (torch.nn.Identity(), "must be a mapping of size, .*; got Identity of x"),
    ],
)
def test_what_cannot_be_is_refused(values, said):
    with pytest.raises(UsageError, match=said):
        Preprocessing.of(values, "x")


@pytest.mark.parametrize(
    ("stated", "fit"),
    [
        ({"size": {"height": 32, "width": 32}}, "squeeze"),
        ({"size": 32}, "squeeze"),
        ({"size": 32, "crop_pct": 0.875}, "cut"),
        ({"size": {"shortest_edge": 32}}, "cut"),
        ({"size": 32, "do_center_crop": True}, "cut"),
        ({}, None),
    ],
)
def test_squares_are_made_as_the_processor_makes_them(stated, fit):
    found = Preprocessing.of_processor(stated, "x")
    assert found.fit == fit
    assert ("fit=squeeze" in found.in_words()) == (fit == "squeeze")


def test_a_processor_of_transformers_is_read():
    stated = {
        "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3,
    }  # fmt: skip
    found = Preprocessing.of_processor(stated, "x")
    assert (found.size, found.interpolation, found.mean) == (224, "bicubic", (127.5,) * 3)
    raw = Preprocessing.of_processor(
        {"do_normalize": False, "size": 64, "rescale_factor": None}, "x"
    )
    assert (raw.size, raw.mean, raw.std) == (64, (0.0,) * 3, (255.0,) * 3)
    assert Preprocessing.from_json(found.to_json()) == found
