"""The 3-D attention transformer: a patch of every frame is a token, and every token sees every
other.

A diffusion transformer (Peebles & Xie 2023) in pixel space that predicts clean patches (Li & He
2025, arXiv 2511.13720), with full attention over time and space through SDPA (Open-Sora's report 1
found it ahead of factorised attention at equal steps), queries and keys of norm one, ReLU^2, and
one shared modulation with a table for each block (adaLN-single, Chen et al. 2023). Tokens span one
frame, so that every frame has a noise level of its own.

Shapes: B clips, T frames, C channels, S pixels a side, P pixels of a patch, N = T (S/P)^2 tokens, W
the width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.apps.video.pixels import PixelScale

_HEAD = 64
_NUM_MODULATIONS = 6
_FREQUENCIES = 64
# Levels lie in 0..1; the transformer's sines are made for steps up to 1,000 (Peebles & Xie 2023).
_LEVEL_SCALE, _LONGEST_PERIOD = 1000.0, 10_000.0


class Transformer(nn.Module):
    """A transformer ``(noisy [B, T, C, S, S], levels [B, T], labels [B] or None) -> clean [B, T, C,
    S, S]``.

    Args:
        num_frames: T.
        channels: C.
        size: S.
        num_classes: 0 if clips have no classes; label ``num_classes`` means "not said".
        width: W, a multiple of 64, the width of a head.
        depth: number of blocks.
        patch: P, a divisor of S.
        scale: the module from bytes to what the network sees.
    """

    def __init__(
        self,
        *,
        num_frames: int,
        channels: int,
        size: int,
        num_classes: int,
        width: int,
        depth: int,
        patch: int,
        scale: PixelScale,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.patch, self.num_classes = patch, num_classes
        side, pixels = size // patch, channels * patch * patch
        self.embed_patch = nn.Linear(pixels, width)
        self.frame_places = nn.Parameter(0.02 * torch.randn(num_frames, 1, width))
        self.row_places = nn.Parameter(0.02 * torch.randn(side, 1, width))
        self.column_places = nn.Parameter(0.02 * torch.randn(1, side, width))
        self.embed_level = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.embed_class = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, _NUM_MODULATIONS * width))
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))
        self.out_table = nn.Parameter(torch.zeros(2, width))
        self.out = nn.Linear(width, pixels)
        last: Any = self.modulation[-1]
        for zero in (last.weight, last.bias, self.out.weight):
            nn.init.zeros_(zero)

    def forward(self, noisy: Tensor, levels: Tensor, labels: Tensor | None = None) -> Tensor:
        frames = noisy.shape[1]
        tokens = self.embed_patch(_to_patches(noisy, self.patch))
        per_frame = tokens.shape[1] // frames
        tokens = tokens + (
            self.frame_places + (self.row_places + self.column_places).flatten(0, 1)
        ).flatten(0, 1)
        condition = self.embed_level(_sines(levels).to(tokens.dtype))
        if self.embed_class is not None:
            unsaid = torch.full_like(levels[:, 0], self.num_classes, dtype=torch.int64)
            condition = condition + self.embed_class(unsaid if labels is None else labels)[:, None]
        modulation = self.modulation(condition).unflatten(-1, (_NUM_MODULATIONS, -1))
        modulation = modulation.repeat_interleave(per_frame, 1)
        for block in self.blocks:
            tokens = block(tokens, modulation)
        shift, scale = self.out_table
        tokens = self.out(
            _modulated(tokens, modulation[:, :, 0] + shift, modulation[:, :, 1] + scale)
        )
        return _from_patches(tokens, noisy.shape, self.patch)


class TransformerBlock(nn.Module):
    """The attention over all tokens, then a two-layer net; both shifted, scaled and gated by the
    token's frame's level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = width // _HEAD
        self.table = nn.Parameter(torch.zeros(_NUM_MODULATIONS, width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)
        with torch.no_grad():  # gates start open, what passes through them at zero
            self.table[2].fill_(1.0)
            self.table[5].fill_(1.0)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        """Maps tokens [B, N, W], modulation [B, N, 6, W] to [B, N, W]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).unbind(2)
        tokens = tokens + gate1 * self._attend(_modulated(tokens, shift1, scale1))
        return tokens + gate2 * self.narrow(
            F.relu(self.widen(_modulated(tokens, shift2, scale2))).square()
        )

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, _HEAD)).permute(2, 0, 3, 1, 4)
        q, k = (F.layer_norm(one, (_HEAD,)) for one in (q, k))
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def _sines(levels: Tensor) -> Tensor:
    """Maps [B, T] to [B, T, 128]: cosines and sines of geometric frequencies (Vaswani et al.
    2017)."""
    exponents = torch.arange(_FREQUENCIES, device=levels.device) / _FREQUENCIES
    angles = levels[..., None] * _LEVEL_SCALE * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], -1)


def _to_patches(clips: Tensor, patch: int) -> Tensor:
    """Cuts [B, T, C, S, S] to [B, N, C P P]; tokens in the order frame, row, column."""
    batch, frames, channels, size, _ = clips.shape
    side = size // patch
    cut = clips.reshape(batch, frames, channels, side, patch, side, patch)
    return cut.permute(0, 1, 3, 5, 2, 4, 6).reshape(
        batch, frames * side * side, channels * patch * patch
    )


def _from_patches(tokens: Tensor, shape: torch.Size, patch: int) -> Tensor:
    """The inverse of :func:`_to_patches`."""
    batch, frames, channels, size, _ = shape
    side = size // patch
    cut = tokens.reshape(batch, frames, side, side, channels, patch, patch)
    return cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(shape)
