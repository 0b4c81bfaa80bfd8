"""Begins fine-tuning: features of the training images by the frozen trunk, and the head that is
solved on them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from volano.apps.targets.target import Target
from volano.data.sources import LabelledImages
from volano.device import Device
from volano.pretrained.frozen_features import FineTuningStart, frozen_features
from volano.pretrained.image_networks import ImageNetwork
from volano.pretrained.linear_probe import solve_probe

_BATCH = 16


def begin(
    network: ImageNetwork,
    train: LabelledImages,
    target: Target,
    device: Device,
    *,
    seed: int,
    is_balanced: bool,
) -> FineTuningStart:
    """Passes training images through the frozen trunk, and solves a head.

    Args:
        network: the pretrained network.
        train: the training images, of which the same share of each class is taken if they are many.
        target: what the head is to give.
        device: where the trunk computes.
        seed: the seed of the folds.
        is_balanced: whether classes weigh alike.
    """
    some = train.select(target.rows_to_solve(train.labels.numpy()))
    labels: list[Tensor] = []
    keys: list[str] = []

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for pixels, part in some.parts():
            labels.append(part.labels)
            keys.extend(member.key for member in part.members())
            yield from ((batch,) for batch in pixels.split(_BATCH))

    features, seconds = frozen_features(network.trunk, batches(), device)
    solver = target.head_solver(is_balanced=is_balanced)
    found = solve_probe(features, target.wanted(torch.cat(labels)), solver, seed=seed, keys=keys)
    return FineTuningStart(probe=found, example_seconds=seconds)
