"""The frames of clips that are looked at, and their augmentation on the device.

Shapes: B clips, K frames kept of each, T frames that a network sees, C channels, S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from volano.apps.image.augment import Augmentation

# Frames that are kept for each that is looked at: training takes one of them.
KEPT_FOR_EACH = 2


def looked_at(frames: Tensor) -> Tensor:
    """Returns the frames that are evaluated, uint8 [B, T, ...] of [B, K, ...]."""
    return frames[:, ::KEPT_FOR_EACH]


@dataclass(frozen=True, kw_only=True)
class ClipViews:
    """The augmentation ``augment((frames, labels), generator)`` for a Task: frames uint8 [B, K, C,
    S, S] in, [B, T, C, S, S] out: one of each few (Wang et al. 2016, "TSN"), all of a clip moved
    and mirrored alike.

    Attributes:
        flip: mirror half of the clips left to right.
        translate: largest shift in pixels, with reflected borders.
    """

    flip: bool
    translate: int

    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        """Implements ``Task.augment``."""
        return self.of_part(batch, generator, 0, 1)

    def of_part(self, batch: Any, generator: torch.Generator, rank: int, world_size: int) -> Any:
        """Changes a rank's part of a batch as the whole would be; see ``Task.augment``."""
        frames, labels = batch
        count, num_frames = len(frames), frames.shape[1] // KEPT_FOR_EACH
        drawn = torch.randint(
            KEPT_FOR_EACH, (count * world_size, num_frames), generator=generator,
            device=generator.device,
        )[rank::world_size].to(frames.device)  # fmt: skip
        places = KEPT_FOR_EACH * torch.arange(num_frames, device=frames.device) + drawn
        frames = frames[torch.arange(count, device=frames.device)[:, None], places]
        # A clip's frames are moved as the channels of one image.
        augmentation = Augmentation(flip=self.flip, translate=self.translate, cutout=0)
        moved, labels = augmentation.of_part(
            (frames.flatten(1, 2), labels), generator, rank, world_size
        )
        return moved.view_as(frames), labels
