"""Predicts over sets of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from volano.apps.image.augment import predict_tta
from volano.data import Fault
from volano.data.sources import LabelledImages
from volano.device import Device
from volano.errors import DataError

_BATCH = 512
# Of outputs, whether each example deserves more views.
Unsure = Callable[[Tensor], Tensor]


def predict_logits(
    model: nn.Module,
    images: Tensor,
    device: Device,
    *,
    precision: str,
    flip: bool,
    translate: int,
    unsure: Unsure,
) -> Tensor:
    """Returns the outputs fp32 [N, outputs] on the host for bytes uint8 [N, C, H, W], averaged over
    shifted (and mirrored) views if the plain prediction is ``unsure``."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), device.autocast(precision):
            return torch.cat(
                [
                    _one_batch(model, batch, device, flip, translate, unsure)
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
    unsure: Unsure,
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
            logits.append(
                predict_logits(
                    model,
                    pixels,
                    device,
                    precision=precision,
                    flip=flip,
                    translate=translate,
                    unsure=unsure,
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
    model: nn.Module, images: Tensor, device: Device, flip: bool, translate: int, unsure: Unsure
) -> Tensor:
    logits = model(device.move(images)).float().cpu()
    is_unsure = unsure(logits)
    if (flip or translate) and is_unsure.any():
        views = device.move(images[is_unsure])
        logits[is_unsure] = predict_tta(model, views, flip=flip, translate=translate).float().cpu()
    return logits
