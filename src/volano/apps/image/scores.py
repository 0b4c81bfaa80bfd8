"""Predicts over sets of images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from volano.apps.image.augment import predict_tta
from volano.data import Fault
from volano.data.sources import LabelledImages
from volano.device import Device
from volano.errors import DataError

_BATCH = 512
# Views cost a forward pass each; only images about which the network is unsure get them (see
# docs/log.md). With label smoothing of 0.1 no probability comes much above 0.9.
_SURE = 0.8


class HardExample(NamedTuple):
    """A hard example: row of a set, true and predicted class as numbers, the predicted one's
    probability, and the loss."""

    row: int
    true: int
    predicted: int
    probability: float
    loss: float


def predict_logits(
    model: nn.Module, images: Tensor, device: Device, *, precision: str, flip: bool, translate: int
) -> Tensor:
    """Returns the logits fp32 [N, classes] on the host for bytes uint8 [N, C, H, W], averaged over
    shifted (and mirrored) views if the plain prediction is unsure."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), device.autocast(precision):
            return torch.cat(
                [
                    _one_batch(model, batch, device, flip, translate)
                    for batch in images.split(_BATCH)
                ]
            )
    finally:
        model.train(was_training)


def predict_labelled(
    model: nn.Module,
    images: LabelledImages,
    device: Device,
    *,
    precision: str,
    flip: bool,
    translate: int,
) -> tuple[Tensor, Tensor, list[Fault]]:
    """Returns :func:`predict_logits` of labelled images, their labels int64 [N], and the files that
    could not be read and are left out of both.

    Raises:
        DataError: none can be read.
    """
    logits, labels, faults = [], [], [*images.faults]
    for pixels, part in images.parts():
        faults += part.faults if part is not images else ()
        if len(part):
            logits.append(
                predict_logits(
                    model, pixels, device, precision=precision, flip=flip, translate=translate
                )
            )
            labels.append(part.labels)
    if not logits:
        raise DataError(
            "At least one of the images must be readable",
            got=f"none; the first: {faults[0].reason}",
        )
    return torch.cat(logits), torch.cat(labels), faults


def _one_batch(
    model: nn.Module, images: Tensor, device: Device, flip: bool, translate: int
) -> Tensor:
    logits = model(device.move(images)).float().cpu()
    unsure = logits.softmax(1).amax(1) < _SURE
    if (flip or translate) and unsure.any():
        views = device.move(images[unsure])
        logits[unsure] = predict_tta(model, views, flip=flip, translate=translate).float().cpu()
    return logits


def hardest(logits: Tensor, labels: Tensor, count: int) -> list[HardExample]:
    """The ``count`` examples with the highest cross-entropy in nats, the hardest first. Logits [N,
    classes], labels int64 [N]."""
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    rows = losses.topk(min(count, len(losses))).indices
    probability, predicted = logits[rows].softmax(1).max(1)
    columns = (rows, labels[rows], predicted, probability, losses[rows])
    return [
        HardExample(*values)
        for values in zip(*(column.tolist() for column in columns), strict=True)
    ]
