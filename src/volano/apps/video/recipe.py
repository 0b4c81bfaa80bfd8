"""The rules for hyper-parameters, from the data and the length of the run; nothing here knows a
data set by name.

"Measured" refers to docs/log.md and docs/decisions/video.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from volano.apps.options import not_tried, tried_around, tried_between

# From so many clips seen on, the transformer's better scaling can pay. An estimate: at a twentieth
# of it, and equal time on a CPU, it had learned the mean frame when the U-Net had learned motion.
TRANSFORMER_FROM_VIEWS = 300_000
_BATCH, LEAST_BATCH = 32, 8
# A batch is halved if the time has fewer steps than this for it.
STEPS_OF_WHOLE_BATCHES = 200
_UNET_WIDTH = 64
_TRANSFORMER_WIDTH, _TRANSFORMER_DEPTH = 384, 8
# Tokens of a frame: 8 x 8 keep attention over 16 frames at 1,024 tokens.
_MOST_PATCHES_A_SIDE = 8
_EMA_SHARE = 0.05
# Steps of the feature net, of 20 clips. Measured: it then tells four of five tampered clips of the
# embedded sample right (guessing: one of five); half the steps with twice the clips cost more and
# score the same.
FEATURE_STEPS = 120


@dataclass(frozen=True, kw_only=True)
class VideoRecipe:
    """The numbers of one training.

    Attributes:
        batch_size: clips per step.
        matrix_lr: the learning rate of Muon, on the kernels or matrices of the blocks.
        rest_lr: the learning rate of AdamW, on everything else.
        ema_decay: the decay of the average of the weights.
        num_evaluations: the number of times that the test clips are evaluated.
    """

    batch_size: int
    matrix_lr: float = tried_around(4.0)
    rest_lr: float = tried_around(5.0)
    ema_decay: float = tried_between(0.9, 0.99)
    num_evaluations: int = not_tried()


def choose_recipe(
    *, num_train: int, num_steps: int, batch_size: int | None, network: str = "unet"
) -> VideoRecipe:
    """Returns every number of a training of ``num_steps`` steps.

    - Batch 32: measured throughput is flat from 16 on, and short runs want steps. Muon's own cost
      is then a tenth.
    - The average's time constant is a twentieth of the run: a fixed 0.999 would still hold the
      first weights of a run of a thousand steps.
    """
    is_unet = network == "unet"
    return VideoRecipe(
        batch_size=min(_BATCH if batch_size is None else batch_size, num_train),
        matrix_lr=0.02,
        rest_lr=0.002 if is_unet else 0.001,
        ema_decay=min(0.9999, max(0.5, 1 - 1 / max(1.0, _EMA_SHARE * num_steps))),
        num_evaluations=max(1, min(10, num_steps // 20)),
    )


def network_shape(network: str, size: int) -> dict[str, int]:
    """Returns width, depth and patch of a network for frames of ``size`` pixels, as ``VideoSpec``
    has them."""
    if network == "unet":
        return {"width": _UNET_WIDTH, "depth": 0, "patch": 0}
    patch = next(
        patch
        for patch in range(1, size + 1)
        if size % patch == 0 and size // patch <= _MOST_PATCHES_A_SIDE
    )
    return {"width": _TRANSFORMER_WIDTH, "depth": _TRANSFORMER_DEPTH, "patch": patch}


def parameter_groups(model: nn.Module, *, matrix_lr: float, rest_lr: float) -> list[dict[str, Any]]:
    """Returns the groups for ``MuonAdamW``: the kernels (or matrices) of the residual blocks, and
    everything else."""
    inside = ("down.", "middle.", "up.", "blocks.")
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        in_block = name.startswith(inside) and parameter.ndim >= 2
        is_matrix = in_block and ".table" not in name and ".condition" not in name
        (matrices if is_matrix else rest).append(parameter)
    muon = {"algorithm": "muon", "lr": matrix_lr, "weight_decay": 0.0}
    adamw = {"algorithm": "adamw", "lr": rest_lr, "weight_decay": 0.0, "betas": (0.9, 0.99)}
    return [{"params": matrices, **muon}, {"params": rest, **adamw}]
