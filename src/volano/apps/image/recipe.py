"""The rules for hyper-parameters, from the data and the length of the run; nothing here knows a
data set by name.

"Measured" refers to docs/log.md: Fashion-MNIST, two cores with AVX512_BF16, bf16, torch 2.13, one
seed per setting unless said, so that differences under about 0.25 points are noise. "airbench" is
K. Jordan's airbench94_muon (arXiv 2404.00498 and its repository).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from volano.apps.image.network import choose_shape, forward_flops
from volano.apps.options import not_tried, tried_around, tried_between, tried_up_to_twice

# fastai's Imagenette table: with wrong labels 80 epochs score far below 20, so no run lasts
# ever by itself.
MOST_EPOCHS = 60.0
# Without any option. Measured on the embedded digits: 20, 40 and 60 epochs score alike, 98.5 to 100
# % by seed.
DEFAULT_EPOCHS = 30.0
_REFERENCE_BATCH = 500
_MIN_BATCH, _MAX_BATCH = 64, 512
# A batch is halved, to no less than this, if the time has fewer steps for it. Measured
# (Fashion-MNIST, the tiny net, AVX2, 30 and 10 s of one thread): 256: 87.1 and 80.5, 128: 89.1 and
# 84.5, 64: 88.0 and 82.7.
LEAST_HALVED_BATCH, STEPS_OF_WHOLE_BATCHES = 100, 200
_STEPS_PER_EPOCH = 120
# Images of fewer pixels a side are hardly moved, and nothing is painted over.
_TINY = 16
# The larger net pays from so many epochs on. Measured at 28 px: thin reaches 93.4 to 93.8 % after 4
# epochs; airbench94 trains 8, airbench96 its wide net 45. Small sets do not need width.
# Of a large set, tiny scored better in 30 s of one thread (89.1, thin 87.2 at the same batch).
_EPOCHS_FOR = {"wide": 24.0, "base": 8.0, "thin": 2.0}
_LARGE_SET = 10_000
# Larger nets use the processor better: measured 2.5e11 FLOP/s for thin, 3.2e11 for base.
_EFFICIENCY = {"wide": 1.28, "base": 1.28, "thin": 1.0, "tiny": 0.7}


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """The numbers of one training.

    Attributes:
        batch_size: examples per step.
        epochs: passes over the training set.
        kernel_lr: the learning rate of Muon, on the kernels of convolutions.
        rest_lr: the learning rate of AdamW, on everything else.
        label_smoothing: see ``Classification``.
        translate: largest shift in training, in pixels.
        cutout: side of the painted square, 0 for none.
        num_evaluations: the number of times that the validation set is evaluated.
    """

    batch_size: int
    epochs: float = not_tried()
    kernel_lr: float = tried_around(4.0)
    rest_lr: float = tried_around(5.0)
    label_smoothing: float = tried_between(0.0, 0.25)
    translate: int = tried_up_to_twice()
    cutout: int
    num_evaluations: int = not_tried()


def choose_recipe(
    *, num_train: int, resolution: int, num_classes: int, epochs: float, batch_size: int | None
) -> ImageRecipe:
    """Returns every number of a training of ``epochs`` epochs.

    - Batch: about 120 steps an epoch, within 64 and 512. Measured at 60,000 images: 500 and 250
      score alike (93.7 and 93.8 after 4 epochs); throughput is flat from 256 to 1,024 and 10 %
      lower at 128. Below 64 BatchNorm gets noisy.
    - Muon lr 0.05 at batch 500, with the square root of the batch. Measured (4 epochs, with views):
      0.03: 93.1, 0.05: 93.7, 0.1: 93.4, 0.2: 93.1; and 0.035 at batch 250: 93.8. Kernels have
      constant norm, so this is the angle of a step and does not depend on the width.
    - AdamW lr 0.005. Measured: 0.002: 93.5, 0.005: 93.7, 0.01: 93.7, all within noise.
    - Label smoothing 0.1 (airbench 0.2 for 10 classes; only 0.1 was run here).
    - Translation: a sixteenth of the side (airbench 2 of 32) from 8 epochs on, half of it in
      shorter runs. Measured at 4 epochs: 1 px 93.45 and 93.8 (without and with views), 2 px 93.0
      and 93.7. One pixel under 16 px: on the digits it took the hardest of five hold-outs from 98.5
      to 99.3 %.
    - Cutout: a quarter of the side, from 30 epochs on (airbench96 12 of 32). Not measured here.
    """
    if batch_size is None:
        wanted = 8 * round(num_train / _STEPS_PER_EPOCH / 8)
        batch_size = max(min(_MIN_BATCH, num_train), min(_MAX_BATCH, wanted))
    batch_size = min(batch_size, num_train)
    is_tiny = resolution < _TINY
    return ImageRecipe(
        batch_size=batch_size,
        epochs=epochs,
        kernel_lr=0.05 * math.sqrt(batch_size / _REFERENCE_BATCH),
        rest_lr=0.005,
        label_smoothing=0.1 if num_classes > 2 else 0.05,
        translate=1 if is_tiny else max(1, round(resolution / (16 if epochs >= 8 else 32))),
        cutout=resolution // 4 if epochs >= 30 and not is_tiny else 0,
        num_evaluations=max(1, min(10, round(epochs))),
    )


def view_shift(resolution: int) -> int:
    """Returns the shift of the views in test-time augmentation, in pixels."""
    return 0 if resolution < _TINY else max(1, round(resolution / 32))


def relative_costs(
    *, num_train: int, resolution: int, channels: int, num_classes: int
) -> dict[str, tuple[float, float]]:
    """Returns for each size of network, the largest first, the cost of an image in those of
    ``thin``, and the epochs from which it pays."""
    flops = {
        size: forward_flops(choose_shape(size, channels, resolution, num_classes), resolution)
        for size in _EFFICIENCY
    }
    return {
        size: (flops[size] / flops["thin"] / _EFFICIENCY[size], _EPOCHS_FOR.get(size, 0.0))
        for size in (_EFFICIENCY if num_train >= _LARGE_SET else ("thin", "tiny"))
    }
