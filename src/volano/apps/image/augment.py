"""The batched image augmentation on bytes, and prediction averaged over views.

All images of a batch are changed at once with integer indexing on the device they lie on; the
output has the shape and type of the input, ``[N, C, H, W]`` of bytes. Random numbers come only
from the generator that is handed in, in a fixed order, so equal generators give equal batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def reflect_index(index: Tensor, length: int) -> Tensor:
    """Folds positions outside ``0 .. length - 1`` back inside, as reflect padding does."""
    last = length - 1
    return last - (last - index.abs()).abs()


def move_and_flip(images: Tensor, down: Tensor, right: Tensor, flip: Tensor | None) -> Tensor:
    """Shifts each image by its own whole number of pixels, with reflected borders.

    ``images`` is ``[N, C, H, W]``; ``down`` and ``right`` are ``[N]`` integers with absolute
    value below H and W; ``flip`` is ``[N]`` bool (mirror left-right) or None. One gather does all.
    """
    count, channels, height, width = images.shape
    device = images.device
    rows = reflect_index(torch.arange(height, device=device) - down[:, None], height)
    columns = reflect_index(torch.arange(width, device=device) - right[:, None], width)
    if flip is not None:
        columns = torch.where(flip[:, None], width - 1 - columns, columns)
    places = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    flat = images.reshape(count, channels, height * width)
    return flat.gather(2, places.expand(-1, channels, -1)).view_as(images)


def cut_out(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Paints a square of each image with the mean colour of that image.

    ``top`` and ``left`` are ``[N]`` integers and may lie outside the image.
    """
    height, width = images.shape[-2:]
    row = torch.arange(height, device=images.device) - top[:, None]
    column = torch.arange(width, device=images.device) - left[:, None]
    inside_rows = (row >= 0) & (row < side)
    inside_columns = (column >= 0) & (column < side)
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    colour = images.float().mean((2, 3), keepdim=True).to(images.dtype)
    return torch.where(inside, colour, images)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The augmentation ``augment((images, labels), generator)`` for a Task: bytes uint8 [N, C, H,
    W] in and out, labels untouched.

    Attributes:
        flip: mirror half of the images.
        translate: largest shift in pixels, with reflected borders.
        cutout: side of a square painted over in each image (DeVries & Taylor 2017), its centre
            uniform; 0 for none.
    """

    flip: bool
    translate: int
    cutout: int

    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        """Implements ``Task.augment``."""
        return self.of_part(batch, generator, 0, 1)

    def of_part(self, batch: Any, generator: torch.Generator, rank: int, world_size: int) -> Any:
        """Changes a rank's part of a batch as the whole would be; see ``Task.augment``."""
        images, labels = batch
        count, _, height, width = images.shape

        def draw(low: int, high: int) -> Tensor:
            # Drawn where the generator lives; a copy happens only on backends without generators of
            # their own.
            drawn = torch.randint(
                low, high + 1, (count * world_size,), generator=generator, device=generator.device
            )
            return drawn[rank::world_size].to(images.device)

        mirrored = draw(0, 1).bool() if self.flip else None
        if self.flip or self.translate:
            reach_down = min(self.translate, height - 1)
            reach_right = min(self.translate, width - 1)
            down, right = draw(-reach_down, reach_down), draw(-reach_right, reach_right)
            images = move_and_flip(images, down, right, mirrored)
        if self.cutout:
            top, left = draw(0, height - 1), draw(0, width - 1)
            images = cut_out(images, top - self.cutout // 2, left - self.cutout // 2, self.cutout)
        return images, labels


@torch.no_grad()
def predict_tta(model: nn.Module, images: Tensor, flip: bool, translate: int) -> Tensor:
    """Averages the logits ``[N, classes]`` of ``model`` over views of ``images`` ``[N, C, H, W]``.

    The views and weights are those of airbench94: the image itself (weight 1/2) and two diagonal
    shifts of ``translate`` pixels (1/4 each), each also mirrored if ``flip``. ``translate = 0``
    leaves out the shifts.
    """
    shifts = [(0, 1.0)] if translate == 0 else [(0, 0.5), (-translate, 0.25), (translate, 0.25)]
    total: Tensor | None = None
    for shift, weight in shifts:
        offset = torch.full((len(images),), shift, device=images.device)
        view = images if shift == 0 else move_and_flip(images, offset, offset, None)
        logits = model(view)
        if flip:
            logits = (logits + model(view.flip(-1))) / 2
        total = logits * weight if total is None else total + logits * weight
    assert total is not None
    return total
