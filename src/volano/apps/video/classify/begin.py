"""Begins fine-tuning on clips: features of the training clips by the frozen trunk, and the head
that is solved on them."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from volano.apps.image.fine_tuning.begin import FineTuningStart
from volano.apps.video.classify.augment import looked_at
from volano.apps.video.classify.network import FrameNetwork
from volano.data.sources import Clips
from volano.device import Device
from volano.pretrained.linear_probe import SoftmaxHead, solve_probe, some_of_each

_BATCH = 4


def begin_clips(
    network: FrameNetwork, train: Clips, device: Device, *, seed: int, is_balanced: bool
) -> FineTuningStart:
    """Passes training clips through the frozen trunk, and solves a head.

    Args:
        network: the pretrained network.
        train: the training clips, of which some of each class are taken if they are many.
        device: where the trunk computes.
        seed: the seed of the folds.
        is_balanced: whether classes weigh alike.
    """
    rows = torch.from_numpy(some_of_each(train.labels.numpy(), len(train.classes)))
    trunk = network.fresh_trunk().to(device.torch_device).eval()
    parts: list[Tensor] = []
    mark = time.perf_counter()
    with torch.inference_mode():
        for some in rows.split(_BATCH):
            parts.append(trunk(device.move(looked_at(train.frames[some]))).cpu())
    seconds = (time.perf_counter() - mark) / len(rows)
    solver = SoftmaxHead(num_classes=len(train.classes), is_balanced=is_balanced)
    probe = solve_probe(torch.cat(parts), train.labels[rows], solver, seed=seed)
    return FineTuningStart(probe=probe, image_seconds=seconds)
