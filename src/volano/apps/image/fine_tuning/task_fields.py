"""The Task of fine-tuning a network of images."""

from __future__ import annotations

from typing import Any

from volano.apps.image.augment import Augmentation
from volano.apps.image.fine_tuning.recipe import FineTuningRecipe
from volano.pretrained.fine_tuned import PretrainedTrunk
from volano.pretrained.linear_probe import LinearProbe
from volano.pretrained.network_references import ALL
from volano.pretrained.tuning import TuningRates, tuning_fields

_WEIGHT_DECAY = 0.05


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
    decay = _WEIGHT_DECAY if tune == ALL else probe.weight_decay
    rates = TuningRates(trunk=recipe.trunk_lr, head=recipe.head_lr, weight_decay=decay)
    fields = tuning_fields(network, tune, probe, num_classes, rates)
    if tune == ALL:
        fields["augment"] = Augmentation(flip=flip, translate=recipe.translate, cutout=0)
    return {**fields, "objective": objective}
