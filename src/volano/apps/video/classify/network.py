"""The networks that classify clips: one of Volano's own, and a frozen network of images that looks
at each frame.

Shapes: B clips, T frames, C channels, S pixels a side, F features.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.apps.video.pixels import PixelScale
from volano.pretrained.image_networks import ImageNetwork

_GROUPS = 4


class ClipClassifier(nn.Module):
    """A classifier: bytes uint8 [B, T, C, S, S] in, logits fp32 [B, classes] out.

    Each frame goes through convolutions beside its difference from the frame before, so that motion
    is there to be seen from the first step on (Wang et al. 2021, "TDN"); what they give of the
    frames is mixed over time by a convolution, and averaged.

    Args:
        channels: C.
        num_classes: the number of classes of the logits.
        width: maps after the first convolution; a multiple of 4.
        scale: from bytes to what the convolutions see.
    """

    def __init__(self, *, channels: int, num_classes: int, width: int, scale: PixelScale) -> None:
        super().__init__()
        self.scale = scale
        widths = (2 * channels, width, 2 * width, 4 * width, 4 * width)
        self.trunk = nn.Sequential()
        for before, after in itertools.pairwise(widths):
            self.trunk.append(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False))
            self.trunk.append(nn.GroupNorm(_GROUPS, after))
            self.trunk.append(nn.SiLU())
        num_features = 2 * widths[-1]
        self.over_time = nn.Conv1d(num_features, num_features, 3, padding=1, groups=_GROUPS)
        self.head = nn.Linear(num_features, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.scale.encode(frames)
        changes = x - torch.cat([x[:, :1], x[:, :-1]], 1)
        maps = self.trunk(torch.cat([x, changes], 2).flatten(0, 1))
        features = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        features_BFT = features.view(-1, frames.shape[1], features.shape[1]).transpose(1, 2)
        features_BFT = features_BFT + F.silu(self.over_time(features_BFT))
        return self.head(features_BFT.mean(2)).float()


class FrameTrunk(nn.Module):
    """A network of images over the frames of clips: bytes uint8 [B, T, C, S, S] in, the mean of
    its features fp32 [B, F] out."""

    def __init__(self, images: nn.Module) -> None:
        super().__init__()
        self.images = images

    def forward(self, frames: Tensor) -> Tensor:
        features = self.images(frames.flatten(0, 1))
        return features.view(-1, frames.shape[1], features.shape[1]).mean(1)


@dataclass(frozen=True, kw_only=True)
class FrameNetwork:
    """A pretrained network of images, as one of clips; a ``PretrainedTrunk``."""

    images: ImageNetwork

    @property
    def num_features(self) -> int:
        """The features of a clip."""
        return self.images.num_features

    def fresh_trunk(self) -> nn.Module:
        """Returns a trunk of clips with the pretrained weights."""
        return FrameTrunk(self.images.fresh_trunk())
