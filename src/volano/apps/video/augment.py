"""The batched augmentation of clips on the device: a stretch of each clip, and its mirror image.

Shapes: B clips, L frames kept of each, T frames that a network sees, C channels, S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation:
    """The augmentation ``augment((frames, lengths, labels), generator)`` for a Task: frames uint8
    [B, L, C, S, S] in, [B, T, C, S, S] out, a random stretch of each clip's real frames.

    Attributes:
        num_frames: T.
        flip: mirror half of the clips left to right.
    """

    num_frames: int
    flip: bool

    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        """Implements ``Task.augment``."""
        return self.of_part(batch, generator, 0, 1)

    def of_part(self, batch: Any, generator: torch.Generator, rank: int, world_size: int) -> Any:
        """Changes a rank's part of a batch as the whole would be; see ``Task.augment``."""
        frames, lengths, labels = batch
        count, kept = frames.shape[:2]

        def draw() -> torch.Tensor:
            # Drawn where the generator lives; a copy happens only on backends without generators of
            # their own.
            drawn = torch.rand(count * world_size, generator=generator, device=generator.device)
            return drawn[rank::world_size].to(frames.device)

        if kept > self.num_frames:
            starts = (draw() * (lengths - self.num_frames + 1)).long()
            places = starts[:, None] + torch.arange(self.num_frames, device=frames.device)
            frames = frames[torch.arange(count, device=frames.device)[:, None], places]
            lengths = torch.full_like(lengths, self.num_frames)
        if self.flip:
            mirrored = draw() < 0.5
            frames = torch.where(mirrored[:, None, None, None, None], frames.flip(-1), frames)
        return frames, lengths, labels
