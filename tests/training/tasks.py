"""A task of which everything that a run can keep has a state."""

import functools

import torch

import volano
from conftest import classification_with_accuracy, make_mlp


def full_task(make_task, **fields):
    """A task with everything that has a state."""
    base = {
        "model": functools.partial(make_mlp, dropout=0.3),
        "objective": classification_with_accuracy,
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-2),
        "schedule": volano.cosine(warmup=0.1),
        "ema_decay": 0.95,
        "clip_norm": 1.0,
        "augment": lambda batch, generator: [
            batch[0] + 0.01 * torch.rand(batch[0].shape, generator=generator),
            batch[1],
        ],
    }
    return make_task(**{**base, **fields})
