"""Sheets of pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from volano.report import Example, draw_sheet, draw_top_losses


def images_of(num, side, channels):
    return np.random.default_rng(0).integers(0, 256, (num, channels, side, side), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "tile"), [(8, 96), (28, 84), (64, 64), (224, 224)])
def test_images_lie_side_by_side_in_whole_magnifications(tmp_path, side, tile, channels):
    images = images_of(5, side, channels)
    draw_sheet(images, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * (tile + 4) - 4, 2 * (tile + 4) - 4)
        fourth = np.asarray(sheet.convert("RGB"))[tile + 4 :, :tile]
    step = tile // side
    wanted = np.broadcast_to(np.moveaxis(images[3], 0, -1), (side, side, 3))
    assert np.array_equal(fourth[step // 2 :: step, step // 2 :: step], wanted)


def test_one_image(tmp_path):
    draw_sheet(images_of(1, 8, 1), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (96, 96)


def test_boxes_say_where_the_images_are(tmp_path):
    images = images_of(7, 16, 3)
    examples = [
        Example(
            image=image,
            name=f"{row}.png",
            true="a" * 300,
            predicted="ü→漢\nb\r\n",
            probability=0.5,
            loss=2.0,
        )
        for row, image in enumerate(images)
    ]
    found = draw_top_losses(examples, tmp_path / "sheet.png")
    assert [item["name"] for item in found] == [f"{row}.png" for row in range(7)]
    with Image.open(tmp_path / "sheet.png") as sheet:
        for item, image in zip(found, images, strict=True):
            tile = np.asarray(sheet.crop(item["box"]))
            assert tile.shape == (96, 96, 3)
            assert np.array_equal(tile[3::6, 3::6], np.moveaxis(image, 0, -1))


def test_names_that_are_no_utf_8_are_written(tmp_path):
    example = Example(
        image=np.zeros((1, 8, 8), dtype=np.uint8), name="a\udcff", true="caf\udce9",
        predicted="\udcfe", probability=0.5, loss=1.0,
    )  # fmt: skip
    assert draw_top_losses([example], tmp_path / "a.png")[0]["true"] == "caf\udce9"
