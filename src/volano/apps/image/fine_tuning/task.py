"""The Task of fine-tuning a network of images."""

from __future__ import annotations

import functools
from typing import Any

import torch

from volano.apps.image.augment import Augmentation
from volano.apps.image.fine_tuning.recipe import FineTuningRecipe
from volano.pretrained.fine_tuned import (
    ALL,
    PretrainedTrunk,
    fine_tuned_model,
    groups_by_depth,
    head_groups,
)
from volano.pretrained.linear_probe import LinearProbe
from volano.task import cosine, linear


def fine_tuning_fields(
    network: PretrainedTrunk,
    tune: str,
    recipe: FineTuningRecipe,
    probe: LinearProbe,
    *,
    num_classes: int,
    flip: bool,
    objective: Any,
) -> dict[str, Any]:
    """Returns the fields of the Task that differ from those of Volano's own networks."""
    common = {
        "model": functools.partial(fine_tuned_model, network, tune, num_classes, probe),
        "objective": objective,
    }
    if tune == ALL:
        return {
            **common,
            "augment": Augmentation(flip=flip, translate=recipe.translate, cutout=0),
            "optimizer": torch.optim.AdamW,
            "parameter_groups": functools.partial(
                groups_by_depth, trunk_lr=recipe.trunk_lr, head_lr=recipe.head_lr, span=10.0,
                weight_decay=0.05,
            ),
            "schedule": cosine(warmup=0.1),
            "clip_norm": 1.0,
        }  # fmt: skip
    return {
        **common,
        "optimizer": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        "parameter_groups": functools.partial(
            head_groups,
            lr=recipe.head_lr * probe.learning_rate,
            weight_decay=probe.weight_decay,
        ),
        "schedule": linear(),
    }
