"""The optimizer, the rates and the schedule of fine-tuning: the fields of a Task that every
application's pretrained network has."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from volano.plan import Plan
from volano.pretrained.fine_tuned import (
    PretrainedTrunk,
    fine_tuned_model,
    groups_by_depth,
    head_groups,
    parameters_in_words,
)
from volano.pretrained.linear_probe import LinearProbe
from volano.pretrained.network_references import ALL
from volano.task import Task, cosine, linear
from volano.training import throwaway_settings

# Between the rates of the last layers and of the first ones.
_SPAN = 10.0


@dataclass(frozen=True, kw_only=True)
class TuningRates:
    """The rates of fine-tuning.

    Attributes:
        trunk: learning rate of the trunk's last layers, if it is trained; the first ones have a
            tenth of it.
        head: learning rate of the head; with a frozen trunk, a multiple of the one that its
            curvature allows.
        weight_decay: of the trunk and the head; with a frozen trunk, the penalty of the head, which
            stays where it is under the one with which it was solved.
    """

    trunk: float
    head: float
    weight_decay: float


def tuning_fields(
    network: PretrainedTrunk, tune: str, probe: LinearProbe, num_outputs: int, rates: TuningRates
) -> dict[str, Any]:
    """Returns model, optimizer, groups, schedule and clipping of a Task.

    All layers: AdamW at discriminative rates, clipped at 1, cosine with a tenth of warm-up. The
    head alone: the objective that it was solved for, by SGD with Nesterov momentum.
    """
    model = functools.partial(fine_tuned_model, network, tune, num_outputs, probe)
    if tune == ALL:
        return {
            "model": model,
            "optimizer": torch.optim.AdamW,
            "parameter_groups": functools.partial(
                groups_by_depth, trunk_lr=rates.trunk, head_lr=rates.head, span=_SPAN,
                weight_decay=rates.weight_decay,
            ),
            "schedule": cosine(warmup=0.1),
            "clip_norm": 1.0,
        }  # fmt: skip
    return {
        "model": model,
        "optimizer": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        "parameter_groups": functools.partial(
            head_groups, lr=rates.head * probe.learning_rate, weight_decay=rates.weight_decay
        ),
        "schedule": linear(),
    }


def trainable_in_words(task: Task, plan: Plan) -> str:
    """Returns how many parameters of a task's model are trained, in words, from one that is made
    and thrown away."""
    with throwaway_settings(plan):
        return parameters_in_words(task.model())
