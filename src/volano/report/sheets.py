"""Draws sheets of pictures: an augmented batch, and the examples with the highest loss. Pixels are
NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volano.record.files import written
from volano.record.format import one_line

_TILE = 96  # pixels that a small image is magnified to
_GAP = 8
_CAPTION = 44  # two lines of text
_INK, _PAPER = (40, 44, 50), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image uint8 [channels, height, width] and the model's result for it."""

    image: np.ndarray
    name: str
    true: str
    predicted: str
    probability: float | None
    loss: float


def draw_sheet(images: np.ndarray, out: Path) -> None:
    """Writes a PNG of images uint8 [N, channels, height, width] side by side, in rows of about
    three to two.

    Raises:
        OSError: the file cannot be written.
    """
    side = _side(images)
    num_columns = min(len(images), max(1, round(math.sqrt(1.5 * len(images)))))
    num_rows = -(-len(images) // num_columns)
    pitch = side + _GAP // 2
    # No background: between the images the page shows through.
    sheet = _new(
        (num_columns * pitch - _GAP // 2, num_rows * pitch - _GAP // 2), "RGBA", (0, 0, 0, 0)
    )
    for place, image in enumerate(images):
        row, column = divmod(place, num_columns)
        sheet.paste(_tile(image, side), (column * pitch, row * pitch))
    with written(out) as partial:
        sheet.save(partial, optimize=True)


def draw_top_losses(examples: Sequence[Example], out: Path) -> list[dict[str, Any]]:
    """Writes a PNG of examples with the true and the predicted class under each.

    Returns:
        for each, ``name``, ``true``, ``predicted``, ``probability``, ``loss``, and ``box``: left,
        top, right and bottom of its image on the sheet, in pixels.

    Raises:
        OSError: the file cannot be written.
    """
    side = _side(np.stack([example.image for example in examples]))
    num_columns = min(len(examples), 4 if side > 160 else 6)
    num_rows = -(-len(examples) // num_columns)
    width, height = side + 2 * _GAP, side + 2 * _GAP + _CAPTION
    sheet = _new((num_columns * width, num_rows * height), "RGB", _PAPER)
    write = _writer(sheet, side)
    found = []
    for place, example in enumerate(examples):
        row, column = divmod(place, num_columns)
        left, top = column * width + _GAP, row * height + _GAP
        sheet.paste(_tile(example.image, side), (left, top))
        write((left, top + side + 6), example.true)
        how_likely = "" if example.probability is None else f" {example.probability:.0%}"
        write((left, top + side + 22), f"→ {example.predicted}{how_likely}")
        found.append(
            {
                "name": example.name,
                "true": example.true,
                "predicted": example.predicted,
                "probability": None
                if example.probability is None
                else round(example.probability, 4),
                "loss": round(example.loss, 4),
                "box": [left, top, left + side, top + side],
            }
        )
    with written(out) as partial:
        sheet.save(partial, optimize=True)
    return found


def _side(images: np.ndarray) -> int:
    """Returns the pixels of a tile: a whole multiple of a small image, an image over 96 pixels as
    it is."""
    return images.shape[-1] * max(1, _TILE // images.shape[-1])


def _new(size: tuple[int, int], mode: str, colour: tuple[int, ...]) -> Any:
    from PIL import Image

    return Image.new(mode, size, colour)


def _tile(image: np.ndarray, side: int) -> Any:
    from PIL import Image

    pixels = np.moveaxis(image, 0, -1)
    picture = Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3])
    )
    return picture.convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def _writer(sheet: Any, width: int) -> Any:
    import matplotlib
    from PIL import ImageDraw, ImageFont

    # Matplotlib ships DejaVu Sans, which knows more letters than Pillow's own face.
    font = ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 12
    )
    draw = ImageDraw.Draw(sheet)

    def write(place: tuple[int, int], text: str) -> None:
        text = one_line(text)  # Pillow measures single lines
        while text and draw.textlength(text, font=font) > width + _GAP:
            text = text[:-2] + "…" if len(text) > 2 else ""
        draw.text(place, text, fill=_INK, font=font)

    return write
