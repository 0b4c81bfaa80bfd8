"""Computes features of clips without a download: a small 3-D network, trained here on the training
clips, tells how a clip was tampered with.

Its answers are thrown away; what it looks at to answer is kept. The pretexts are those of
self-supervised video learning: is it played backwards, are its frames shuffled (Misra et al. 2016),
at which speed does it run (Benaim et al. 2020), is it sharp.

Shapes: B clips, T frames, C channels, S pixels a side, D features.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.apps.video.pixels import PixelScale
from volano.data import counter_hash
from volano.device import Device

NUM_FEATURES = 32
PRETEXTS = ("as it is", "backwards", "shuffled", "half speed", "blurred")
_BATCH, _LEARNING_RATE = 20, 2e-3
_TRAIN, _TEST = 51, 52  # first counters of the seeds


class FeatureNet(nn.Module):
    """A network with ``features(frames uint8 [B, T, C, S, S]) -> fp32 [B, D]``; called, it gives
    logits [B, pretexts]."""

    def __init__(self, *, channels: int, scale: PixelScale) -> None:
        super().__init__()
        self.scale = scale
        widths = (channels, 16, 32, 64)
        self.layers = nn.Sequential()
        for number, (inputs, width) in enumerate(itertools.pairwise(widths)):
            stride = (1 if number == 0 else 2, 2, 2)
            self.layers.append(nn.Conv3d(inputs, width, 3, stride=stride, padding=1))
            self.layers.append(nn.GroupNorm(4, width))
            self.layers.append(nn.SiLU())
        self.compress = nn.Linear(2 * widths[-1], NUM_FEATURES)
        self.answer = nn.Linear(NUM_FEATURES, len(PRETEXTS))

    def features(self, frames: Tensor) -> Tensor:
        """Computes the mean and the greatest value of each map over time and space, compressed."""
        x = self.layers(self.scale.encode(frames).transpose(1, 2))
        return torch.tanh(self.compress(torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4))], 1)))

    def forward(self, frames: Tensor) -> Tensor:
        return self.answer(self.features(frames))


def tamper(frames: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """Returns each clip changed as its pretext says: frames uint8 [B, T, C, S, S], kinds int64 [B],
    indices into PRETEXTS."""
    count, length = frames.shape[:2]
    order = torch.arange(length).expand(count, -1)
    backwards = order.flip(1)
    shuffled = torch.rand(count, length, generator=generator).argsort(1)
    choices = torch.stack([order, backwards, shuffled, order // 2, order])
    places = choices[kinds, torch.arange(count)]
    changed = frames[torch.arange(count)[:, None], places]
    return torch.where((kinds == 4)[:, None, None, None, None], blurred(changed), changed)


def frozen(frames: Tensor) -> Tensor:
    """The first frame, T times."""
    return frames[:, :1].expand_as(frames)


def shuffled(frames: Tensor, generator: torch.Generator) -> Tensor:
    """The frames of each clip in an order of its own."""
    return tamper(frames, torch.full((len(frames),), PRETEXTS.index("shuffled")), generator)


def blurred(frames: Tensor) -> Tensor:
    """Filters every frame with a mean over 3 x 3 pixels, edges repeated."""
    flat = F.pad(frames.flatten(0, 1).float(), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(flat, 3, stride=1).round().to(torch.uint8).reshape(frames.shape)


def train_feature_net(
    train: Tensor, scale: PixelScale, device: Device, *, num_steps: int, seed: int
) -> FeatureNet:
    """A feature net for clips like ``train``, uint8 [N, T, C, S, S], by AdamW with a linear decay;
    a pure function of its arguments on one machine, that leaves the random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counter_hash(_TRAIN, seed) >> 1)
        net = FeatureNet(channels=train.shape[2], scale=scale).to(device.torch_device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    generator = torch.Generator().manual_seed(counter_hash(_TRAIN, seed, 1) >> 1)
    for step in range(num_steps):
        rows = torch.randint(len(train), (_BATCH,), generator=generator)
        kinds = torch.arange(_BATCH) % len(PRETEXTS)
        clips = tamper(train[rows], kinds, generator)
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - step / num_steps)
        optimizer.zero_grad()
        F.cross_entropy(net(device.move(clips)), device.move(kinds)).backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def pretext_accuracy(net: FeatureNet, clips: Tensor, device: Device, *, seed: int) -> float:
    """Returns the share of clips uint8 [N, T, C, S, S], each under one pretext, that the net tells
    right; chance is one in five."""
    generator = torch.Generator().manual_seed(counter_hash(_TEST, seed) >> 1)
    kinds = torch.arange(len(clips)) % len(PRETEXTS)
    answers = _over(net, tamper(clips, kinds, generator), device)
    return float((answers.argmax(1) == kinds).float().mean())


@torch.no_grad()
def features_of(net: FeatureNet, clips: Tensor, device: Device) -> Tensor:
    """Returns the features fp32 [N, D] on the host."""
    return _over(net.features, clips, device)


def _over(function: Any, clips: Tensor, device: Device) -> Tensor:
    return torch.cat([function(device.move(part)).float().cpu() for part in clips.split(64)])
