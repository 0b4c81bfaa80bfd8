"""The convolutional U-Net with time in the channels: small, quick to learn motion, of a fixed
number of frames.

Frames are folded 2 x 2 into channels and all of them, with their noise levels as planes next to
them, are the channels of one picture (as in SimVP, Gao et al. 2022, and MCVD, Voleti et al. 2022).
Two residual blocks at half the resolution, four at a quarter, two at half again; group norm, SiLU,
and a second convolution that starts at zero. Measured against a 3-D attention transformer at equal
time on a CPU, it learned motion when the other learned the mean frame (docs/decisions/video.md).

Shapes: B clips, T frames, C channels, S pixels a side, W the width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.apps.video.pixels import PixelScale, doubt, linear_guess

_FOLD = 2
_GROUPS = 8
_EMBEDDING = 128


class UNet(nn.Module):
    """A U-Net ``(noisy [B, T, C, S, S], levels [B, T], labels [B] or None) -> clean [B, T, C, S,
    S]``.

    Args:
        num_frames: T.
        channels: C.
        num_classes: 0 if clips have no classes; label ``num_classes`` means "not said".
        width: W, channels at half the resolution; twice as many at a quarter.
        scale: the module from bytes to what the network sees.
    """

    def __init__(
        self, *, num_frames: int, channels: int, num_classes: int, width: int, scale: PixelScale
    ) -> None:
        super().__init__()
        self.scale = scale
        self.num_classes = num_classes
        folded = num_frames * channels * _FOLD**2
        self.mix = nn.Linear(_EMBEDDING, num_frames * num_frames)
        self.stem = nn.Conv2d(folded + num_frames, width, 3, padding=1)
        self.embed_levels = nn.Sequential(nn.Linear(num_frames, _EMBEDDING), nn.SiLU())
        self.embed_class = nn.Embedding(num_classes + 1, _EMBEDDING) if num_classes else None
        self.down = nn.ModuleList(ResidualBlock(width, width) for _ in range(2))
        self.shrink = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.middle = nn.ModuleList(ResidualBlock(2 * width, 2 * width) for _ in range(4))
        self.grow = nn.Conv2d(2 * width, 4 * width, 1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.up = nn.ModuleList(ResidualBlock(width, width) for _ in range(2))
        self.out = nn.Sequential(
            nn.GroupNorm(_GROUPS, width), nn.SiLU(), nn.Conv2d(width, folded, 3, padding=1)
        )
        last: Any = self.out[-1]
        for zero in (last.weight, self.mix.weight, self.mix.bias):
            nn.init.zeros_(zero)

    def forward(self, noisy: Tensor, levels: Tensor, labels: Tensor | None = None) -> Tensor:
        batch, frames, channels, height, width = noisy.shape
        guess = linear_guess(noisy, levels)
        folded = F.pixel_unshuffle(guess.reshape(batch, frames * channels, height, width), _FOLD)
        planes = levels[:, :, None, None].expand(-1, -1, *folded.shape[-2:]).to(folded.dtype)
        condition = self.embed_levels(levels.to(folded.dtype))
        if self.embed_class is not None:
            unsaid = torch.full_like(levels[:, 0], self.num_classes, dtype=torch.int64)
            condition = condition + self.embed_class(unsaid if labels is None else labels)
        x = self.stem(torch.cat([folded, planes], 1))
        for block in self.down:
            x = block(x, condition)
        deep = self.shrink(x)
        for block in self.middle:
            deep = block(deep, condition)
        x = self.join(torch.cat([x, F.pixel_shuffle(self.grow(deep), 2)], 1))
        for block in self.up:
            x = block(x, condition)
        mix = self.mix(condition).unflatten(1, (frames, frames)).to(guess.dtype)
        change = torch.einsum("bts,bschw->btchw", mix, guess) + F.pixel_shuffle(
            self.out(x), _FOLD
        ).reshape(noisy.shape)
        return guess + doubt(levels) * change


class ResidualBlock(nn.Module):
    """The block ``x + conv(act(norm(conv(act(norm(x))) + condition)))``; the identity at first."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(_GROUPS, inputs), nn.GroupNorm(_GROUPS, width)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.condition = nn.Linear(_EMBEDDING, width)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps x [B, W, h, w], condition [B, E] to [B, W, h, w]."""
        y = self.conv1(F.silu(self.norm1(x))) + self.condition(condition)[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(y)))
