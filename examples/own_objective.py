"""Your own objective, with metrics and a mean that is not over examples.

    volano train examples/own_objective.py:task --out runs/own-objective

A character model of Python's own source text. Lines have different lengths, so the loss is a mean
over *characters*: the objective returns their sum and their number, and a plan may split the batch
without changing the gradient.
"""

import argparse
import functools
import inspect

import torch
from torch import nn

import volano

PAD, NUM_CHARACTERS, LENGTH = 0, 128, 40


class CharacterModel(nn.Module):
    """Logits for the next character from a convolution over the last eight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_CHARACTERS, 32, padding_idx=PAD)
        self.mix = nn.Conv1d(32, 64, kernel_size=8)
        self.head = nn.Linear(64, NUM_CHARACTERS)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        past = nn.functional.pad(self.embed(characters.long()).mT, (7, 0))  # [N, 32, L + 7]
        return self.head(nn.functional.relu(self.mix(past)).mT)  # [N, L, characters]


def objective(model: nn.Module, lines: torch.Tensor) -> volano.Loss:
    logits, targets = model(lines[:, :-1]), lines[:, 1:].long()
    known = targets != PAD
    losses = nn.functional.cross_entropy(logits[known], targets[known], reduction="sum")
    hits = (logits[known].argmax(-1) == targets[known]).sum()
    return volano.Loss(total=losses, weight=known.sum(), metrics={"accuracy": hits / known.sum()})


def read_lines() -> torch.Tensor:
    """Lines of a module of the standard library, as bytes uint8 [lines, LENGTH], padded."""
    lines = [line for line in inspect.getsource(argparse).splitlines() if line.strip()]
    rows = [
        [min(ord(character), NUM_CHARACTERS - 1) for character in line[:LENGTH]] for line in lines
    ]
    return torch.tensor([row + [PAD] * (LENGTH - len(row)) for row in rows], dtype=torch.uint8)


def task() -> volano.Task:
    lines = read_lines()
    return volano.Task(
        name="own-objective",
        model=CharacterModel,
        objective=objective,
        data=volano.Arrays(lines[200:]),
        valid=volano.Arrays(lines[:200]),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-2),
        schedule=volano.trapezoid(),
        clip_norm=1.0,
        batch_size=64,
        duration="3ep",
    )
