"""Begins fine-tuning: features of the training images by the frozen trunk, and the head that is
solved on them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from volano.apps.targets.target import Target
from volano.data.sources import LabelledImages
from volano.device import Device
from volano.pretrained.image_networks import ImageNetwork
from volano.pretrained.linear_probe import PROBE, LinearProbe, solve_probe
from volano.training import RunFolder

_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class FineTuningStart:
    """The beginning of fine-tuning: the solved head, and the seconds of a forward pass of one
    image."""

    probe: LinearProbe
    image_seconds: float


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
    trunk = network.trunk.to(device.torch_device).eval()
    parts: list[Tensor] = []
    labels: list[Tensor] = []
    seconds, num = 0.0, 0
    with torch.inference_mode():
        for pixels, part in some.parts():
            for batch in pixels.split(_BATCH):
                mark = time.perf_counter()
                parts.append(trunk(device.move(batch)).cpu())
                # The first batch allocates and loads.
                if len(parts) > 1 or len(some) <= _BATCH:
                    seconds, num = seconds + time.perf_counter() - mark, num + len(batch)
            labels.append(part.labels)
    trunk.cpu()
    solver = target.head_solver(is_balanced=is_balanced)
    found = solve_probe(torch.cat(parts), target.wanted(torch.cat(labels)), solver, seed=seed)
    return FineTuningStart(probe=found, image_seconds=seconds / max(1, num))


def start_of_run(folder: RunFolder) -> FineTuningStart | None:
    """Returns the solved head with which a run began; None if it fine-tunes nothing."""
    if not (folder.path / PROBE).is_file():
        return None
    return FineTuningStart(probe=LinearProbe.load(folder.path / PROBE), image_seconds=0.0)
