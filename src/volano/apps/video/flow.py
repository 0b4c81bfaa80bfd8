"""The objective: rectified flow in pixel space that predicts the clean clip, with a noise level for
every frame.

``noisy = t * clean + (1 - t) * noise``, t from 0 (noise) to 1 (clean): Liu, Gong & Liu 2023. The
network gives the clean clip (Li & He 2025, "Back to basics", arXiv 2511.13720). Levels of their own
for the frames (diffusion forcing, Chen et al. 2024) make one model serve generation (all levels
alike), prediction (the first frames clean) and longer rollouts.

Shapes: B clips, T frames, C channels, S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from volano.apps.video.quality import frame_psnr
from volano.task import Loss

# Shares of a batch. A third at exactly t = 0 puts prediction in one step within what was trained;
# half of the clean prefixes are as long as in evaluation and rollouts. Measured (300 steps on the
# embedded sample, one seed, first predicted frame): a fifth and no preferred prefix 19.6 dB, with
# the preferred prefix 20.5, and a third 20.6.
_PURE_NOISE_SHARE = 0.35
_PREFIX_SHARE = 0.5
_CONTEXT_SHARE = 0.5
_SHARED_LEVEL_SHARE = 0.5
_LABEL_DROPOUT = 0.1
# JiT: the weight 1 / (1 - t)^2 of the velocity's loss is cut off here.
_LARGEST_VELOCITY_FACTOR = 10.0


def draw_levels(batch: int, frames: int, context: int, device: torch.device) -> Tensor:
    """Draws noise levels fp32 [B, T] from the device's generator: half of the clips share one level
    among their frames, half draw them one by one; a third is noise altogether; in half, a prefix is
    clean (t = 1), of ``context`` frames or of 1 to T - 1."""
    clip = torch.rand(6, batch, 1, device=device)
    levels = torch.where(
        clip[0] < _SHARED_LEVEL_SHARE, clip[1], torch.rand(batch, frames, device=device)
    )
    levels = torch.where(clip[2] < _PURE_NOISE_SHARE, torch.zeros_like(levels), levels)
    prefix = 1 + (clip[4] * (frames - 1)).long()
    prefix = torch.where(clip[5] < _CONTEXT_SHARE, torch.full_like(prefix, context), prefix)
    is_clean = (clip[3] < _PREFIX_SHARE) & (torch.arange(frames, device=device) < prefix)
    return torch.where(is_clean, torch.ones_like(levels), levels)


@dataclass(frozen=True, kw_only=True)
class FrameFlow:
    """The squared error of the predicted clean frames, over the frames that were not clean already.

    In evaluation: of the frames after the first ``context`` ones, predicted in one step from noise,
    with their PSNR.

    Attributes:
        num_frames: T.
        context: clean frames at the start, in evaluation; and in a quarter of the training clips.
        num_classes: the number of classes of the clips; 0 for none.
        velocity: weigh the error as that of the velocity, ``(clean - noisy) / (1 - t)`` (for the
            transformer).
    """

    num_frames: int
    context: int
    num_classes: int = 0
    velocity: bool = False

    def __call__(self, model: nn.Module, batch: Any) -> Loss:
        """Implements ``Task.objective``; frames uint8 [B, T or more, C, S, S], lengths int64 [B],
        labels int64 [B]."""
        frames, _, labels = batch
        frames = frames[:, : self.num_frames]
        network: Any = model
        clean = network.scale.encode(frames)
        if model.training:
            return self._train(network, clean, labels)
        return self._evaluate(network, frames, clean, labels)

    def _train(self, network: Any, clean: Tensor, labels: Tensor) -> Loss:
        count, frames = clean.shape[:2]
        levels = draw_levels(count, frames, self.context, clean.device)
        t = levels[:, :, None, None, None]
        noisy = t * clean + (1 - t) * torch.randn_like(clean)
        unsaid = torch.rand(count, device=clean.device) < _LABEL_DROPOUT
        labels = torch.where(unsaid, self.num_classes, labels)
        errors = (network(noisy, levels, labels).float() - clean).square().mean((2, 3, 4))
        weights = (levels < 1).float()
        if self.velocity:
            weights = weights / (1 - levels).clamp(min=1 / _LARGEST_VELOCITY_FACTOR).square()
        return Loss(total=(errors * weights).sum(), weight=(levels < 1).sum())

    def _evaluate(self, network: Any, frames: Tensor, clean: Tensor, labels: Tensor) -> Loss:
        predicted = predict_in_one_step(network, clean, labels, self.context)
        after = slice(self.context, None)
        errors = (predicted - clean).square().mean((2, 3, 4))[:, after]
        psnr = frame_psnr(network.scale.decode(predicted[:, after]), frames[:, after])
        metrics = {"psnr": psnr.mean(), "psnr_first_frame": psnr[:, 0].mean()}
        return Loss(total=errors.mean(1).sum(), weight=len(frames), metrics=metrics)


def predict_in_one_step(network: Any, clean: Tensor, labels: Tensor | None, context: int) -> Tensor:
    """The mean of what may follow the first ``context`` frames: the network's answer at t = 0 for
    all others.

    Clean and result fp32 [B, T, C, S, S], of which only the first ``context`` frames are looked at.
    """
    levels = torch.zeros(clean.shape[:2], device=clean.device)
    levels[:, :context] = 1.0
    t = levels[:, :, None, None, None]
    return network(t * clean + (1 - t) * torch.randn_like(clean), levels, labels).float()
