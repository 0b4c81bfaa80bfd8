"""The numbers of training a classifier of clips, from the clips and the length of the run."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import not_tried, tried_around, tried_between, tried_up_to_twice

# With fewer clips than this for each step of an epoch, batches are smaller.
_BATCH, _LEAST_BATCH, _LEAST_STEPS_AN_EPOCH = 16, 4, 4
MOST_EPOCHS = 60.0


@dataclass(frozen=True, kw_only=True)
class ClipClassRecipe:
    """The numbers of one training.

    Attributes:
        batch_size: clips per step.
        kernel_lr: the learning rate of Muon, on the kernels of convolutions.
        rest_lr: the learning rate of AdamW, on everything else.
        label_smoothing: see ``Classification``.
        translate: largest shift in training, in pixels.
        num_evaluations: the number of times that the validation clips are evaluated.
    """

    batch_size: int
    kernel_lr: float = tried_around(4.0)
    rest_lr: float = tried_around(5.0)
    label_smoothing: float = tried_between(0.0, 0.25)
    translate: int = tried_up_to_twice()
    num_evaluations: int = not_tried()


def choose_recipe(
    *, num_train: int, size: int, epochs: float, batch_size: int | None
) -> ClipClassRecipe:
    """Returns every number of a training of so many epochs: batches of 16 clips, of fewer if there
    are hardly any; shifts of a sixteenth of the side."""
    wanted = batch_size or max(_LEAST_BATCH, min(_BATCH, num_train // _LEAST_STEPS_AN_EPOCH))
    return ClipClassRecipe(
        batch_size=min(wanted, num_train),
        kernel_lr=0.02,
        rest_lr=0.003,
        label_smoothing=0.1,
        translate=max(1, size // 16),
        num_evaluations=max(1, min(10, round(epochs))),
    )
