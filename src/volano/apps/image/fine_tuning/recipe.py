"""The numbers of fine-tuning a network of images."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import not_tried, tried_around, tried_between, tried_up_to_twice
from volano.pretrained.network_references import ALL, HEAD

# The head is solved before the first step: passes beyond these change nothing.
MOST_FINE_TUNING_EPOCHS = {HEAD: 10.0, ALL: 30.0}


@dataclass(frozen=True, kw_only=True)
class FineTuningRecipe:
    """The numbers of one fine-tuning.

    Attributes:
        batch_size: examples per step.
        epochs: passes over the training set.
        trunk_lr: the learning rate of the trunk's last layers; 0 if it is frozen.
        head_lr: the learning rate of the head; with a frozen trunk, a multiple of the rate that its
            curvature allows: the share of the examples that a step sees.
        label_smoothing: see ``Classification``.
        translate: largest shift in training, in pixels.
        num_evaluations: the number of times that the validation set is evaluated.
    """

    batch_size: int
    epochs: float = not_tried()
    trunk_lr: float = tried_around(5.0)
    head_lr: float = tried_around(5.0)
    label_smoothing: float = tried_between(0.0, 0.2)
    translate: int = tried_up_to_twice()
    num_evaluations: int = not_tried()


def choose_fine_tuning(
    tune: str, *, num_train: int, resolution: int, epochs: float, batch_size: int | None
) -> FineTuningRecipe:
    """Returns every number of fine-tuning over so many epochs.

    - All layers: AdamW, decay 0.05, rates 3e-4 in the last layers and a tenth in the first, 1e-3 in
      the head, clipped at 1, cosine with a tenth of warm-up (AutoGluon: 1e-4 and a layer decay of
      0.9; fastai: from lr/100 to lr); label smoothing 0.1, shifts of a thirty-second of the side.
    - The head alone: the objective that it was solved for, so neither smoothing nor augmentation,
      before which frozen features could not be kept. It was solved where the gradients of all
      examples are zero together; those of a step's few push it away, so an epoch is one step of the
      rate that all of them allow.
    - Batch: 16 steps an epoch, within 8 and 32 (head: 256), as memory and few examples want it.
    """
    most = 256 if tune == HEAD else 32
    wanted = batch_size or max(8, min(most, num_train // 16))
    batch, is_head = min(wanted, num_train), tune == HEAD
    return FineTuningRecipe(
        batch_size=batch,
        epochs=epochs,
        trunk_lr=0.0 if is_head else 3e-4,
        head_lr=batch / num_train if is_head else 1e-3,
        label_smoothing=0.0 if is_head else 0.1,
        translate=0 if is_head else max(1, round(resolution / 32)),
        num_evaluations=max(1, min(10, round(epochs))),
    )
