"""Begins fine-tuning on clips: features of the training clips by the frozen trunk, and the head
that is solved on them."""

from __future__ import annotations

import torch

from volano.apps.video.classify.augment import looked_at
from volano.apps.video.classify.network import FrameNetwork
from volano.data.sources import Clips, content_key
from volano.device import Device
from volano.pretrained.frozen_features import FineTuningStart, frozen_features
from volano.pretrained.head_solvers import SoftmaxHead
from volano.pretrained.linear_probe import solve_probe, some_of_each

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
    batches = ((looked_at(train.frames[some]),) for some in rows.split(_BATCH))
    features, seconds = frozen_features(network.fresh_trunk(), batches, device)
    solver = SoftmaxHead(num_classes=len(train.classes), is_balanced=is_balanced)
    keys = [content_key(train.frames[row].numpy().tobytes()) for row in rows]
    probe = solve_probe(features, train.labels[rows], solver, seed=seed, keys=keys)
    return FineTuningStart(probe=probe, example_seconds=seconds)
