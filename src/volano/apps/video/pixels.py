"""Scales between bytes and what a network of the video application sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MOST_FRAMES_READ = 20_000


class PixelScale(nn.Module):
    """The scaling of bytes [.., C, S, S] <-> numbers of mean 0 and deviation 1 in each channel over
    the training clips.

    Rectified flow mixes pixels with noise of deviation 1, so theirs has to be 1 as well
    (Open-Sora's report 1.2).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def encode(self, frames: Tensor) -> Tensor:
        """Maps uint8 to fp32."""
        return (frames.float() - self.mean) / self.std

    def decode(self, values: Tensor) -> Tensor:
        """Maps fp32 to uint8, rounded and clipped."""
        return (values.float() * self.std + self.mean).round().clamp(0, 255).to(torch.uint8)


def pixel_statistics(
    frames: Tensor, lengths: Tensor
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and deviation of each channel's bytes over real frames: of clips uint8 [N, L, C,
    S, S], the first ``lengths`` int64 [N] of each."""
    is_real = torch.arange(frames.shape[1]) < lengths[:, None]
    rows = is_real.flatten().nonzero().flatten()
    sample = frames.flatten(0, 1)[rows[:: max(1, len(rows) // _MOST_FRAMES_READ)]].float()
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp(min=1.0)
    return tuple(round(value, 3) for value in mean.tolist()), tuple(
        round(value, 3) for value in std.tolist()
    )


def linear_guess(noisy: Tensor, levels: Tensor) -> Tensor:
    """The best guess of the clean frames that is linear in the noisy ones: ``t / (t^2 + (1 - t)^2)
    * noisy``.

    For pixels of deviation 1 this is Wiener's filter; it is Karras et al.'s (2022) ``c_skip`` in
    the terms of rectified flow. It is 0 if there is nothing but noise and the frame itself if
    there is none, so a network that looks at it need not learn which frames to trust. noisy [B, T,
    C, S, S], levels [B, T].
    """
    t = levels[:, :, None, None, None]
    return noisy * (t / (t.square() + (1 - t).square()))


def doubt(levels: Tensor) -> Tensor:
    """Returns the deviation of the linear guess's error: ``(1 - t) / sqrt(t^2 + (1 - t)^2)``, [B,
    T, 1, 1, 1].

    Karras et al.'s ``c_out``: what a network adds to the guess, scaled by it, is of deviation 1 at
    every level, and the last steps of a sampler leave no noise of the network's own.
    """
    t = levels[:, :, None, None, None]
    return (1 - t) / (t.square() + (1 - t).square()).sqrt()
