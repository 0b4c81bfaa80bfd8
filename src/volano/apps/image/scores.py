"""Predicts over sets of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from volano.apps.image.augment import predict_tta
from volano.data import Fault, check_readable
from volano.data.sources import LabelledImages
from volano.device import Device

_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Views:
    """The further views of images about which a network is unsure.

    Attributes:
        flip: whether they are mirrored.
        translate: pixels by which they are shifted.
        unsure: of outputs, whether each example deserves more views.
    """

    flip: bool
    translate: int
    unsure: Callable[[Tensor], Tensor]


def predict_logits(
    model: nn.Module, images: Tensor, device: Device, views: Views, *, precision: str = "fp32"
) -> Tensor:
    """Returns the outputs fp32 [N, outputs] on the host for bytes uint8 [N, C, H, W], averaged over
    further views if the plain prediction is unsure."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), device.autocast(precision):
            batches = images.split(_BATCH)
            return torch.cat([_one_batch(model, batch, device, views) for batch in batches])
    finally:
        model.train(was_training)


def predict_labelled(
    model: nn.Module,
    images: LabelledImages,
    device: Device,
    views: Views,
    *,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor, list[Fault]]:
    """Returns :func:`predict_logits` of labelled images, their labels, and the files that
    could not be read and are left out of both.

    Raises:
        DataError: none can be read.
    """
    logits, labels, faults = [], [], [*images.faults]
    for pixels, part in images.parts():
        faults += part.faults if part is not images else ()
        if len(part):
            logits.append(predict_logits(model, pixels, device, views, precision=precision))
            labels.append(part.labels)
    check_readable(len(logits), "images", faults)
    return torch.cat(logits), torch.cat(labels), faults


def _one_batch(model: nn.Module, images: Tensor, device: Device, views: Views) -> Tensor:
    logits = model(device.move(images)).float().cpu()
    is_unsure = views.unsure(logits)
    if (views.flip or views.translate) and is_unsure.any():
        some = device.move(images[is_unsure])
        found = predict_tta(model, some, flip=views.flip, translate=views.translate)
        logits[is_unsure] = found.float().cpu()
    return logits
