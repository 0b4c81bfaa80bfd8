"""Tasks of several structures, whose configurations differ in every number that may vary within a
pack.

Legend: B batch, T tokens of a text, D width.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from volano import Loss, Task, cosine

# Two epochs of the digits.
BATCH_SIZE, NUM_STEPS = 8, 24
_TEXT = inspect.getsource(textwrap)[: 9 * 90]
_ALPHABET = sorted(set(_TEXT))
NUM_LETTERS = len(_ALPHABET)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What differs between the members of a pack."""

    lr: float
    decay: float
    momentum: float
    smoothing: float
    drop: float
    seed: int
    clip_norm: float
    warmup: float
    ema_decay: float

    @property
    def betas(self) -> tuple[float, float]:
        return (self.momentum, 1 - (1 - self.momentum) / 20)


CONFIGS = [
    Config(
        lr=0.002 * 1.7**index, decay=0.01 * index, momentum=0.8 + 0.04 * index,
        smoothing=0.03 * index, drop=0.1 + 0.07 * index, seed=3 + 11 * index,
        clip_norm=0.5 + 0.2 * index, warmup=0.1 + 0.05 * index, ema_decay=0.9 + 0.02 * index,
    )
    for index in range(4)
]  # fmt: skip


@functools.cache
def digits(dtype: torch.dtype) -> tuple[TensorDataset, TensorDataset]:
    """Images [1, 8, 8] and classes: 96 to train on, 40 to evaluate on."""
    images, classes = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=dtype).reshape(-1, 1, 8, 8) / 16
    classes = torch.tensor(classes)
    return TensorDataset(images[:96], classes[:96]), TensorDataset(images[96:136], classes[96:136])


@functools.cache
def texts() -> tuple[TensorDataset, TensorDataset]:
    """Pieces of 8 characters, as ids, and the one that follows each."""
    ids = torch.tensor([_ALPHABET.index(letter) for letter in _TEXT]).reshape(-1, 9)
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    return TensorDataset(inputs[:64], targets[:64]), TensorDataset(inputs[64:], targets[64:])


def mlp(config: Config) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 24),
        nn.GELU(),
        nn.Dropout(config.drop),
        nn.LayerNorm(24),
        nn.Linear(24, 10),
    )


def plain_mlp(config: Config) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def convolutional(config: Config) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8, momentum=0.2), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(config.drop), nn.Linear(8, 10),
    )  # fmt: skip


class Language(nn.Module):
    """Embedding, one block of attention, and a head tied to the embedding. Ids [B, T] to logits [B,
    T, letters]."""

    def __init__(self, config: Config, attention: Callable[[int, float], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_LETTERS, 16)
        self.norm, self.drop = nn.LayerNorm(16), nn.Dropout(config.drop)
        self.attention = attention(16, config.drop)
        self.head = nn.Linear(16, NUM_LETTERS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x_BTD = self.embed(ids)
        return self.head(self.norm(x_BTD + self.drop(self.attention(x_BTD))))


class Scaled(nn.Module):
    """Attention through torch's function. [B, T, D] to the same."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.qkv, self.drop = nn.Linear(width, 3 * width, bias=False), drop

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q, k, v = (
            part.reshape(B, T, 2, D // 2).transpose(1, 2)
            for part in self.qkv(x_BTD).chunk(3, dim=-1)
        )
        return (
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D)
        )


class ManyHeads(nn.Module):
    """Attention through torch's module. [B, T, D] to the same."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(width, 2, dropout=drop, batch_first=True)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.heads(x_BTD, x_BTD, x_BTD, need_weights=False)[0]


class Recurrent(nn.Module):
    """Rows of an image as a sequence."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells, self.head = kind(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.cells(images.squeeze(1))[0][:, -1])


class Gated(nn.Module):
    """A module of one's own: parameters without a layer, a buffer that counts, and a number that
    varies."""

    counter: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.alpha = config.smoothing + 0.5
        self.weight, self.gate = (
            nn.Parameter(torch.randn(64, 10) / 8),
            nn.Parameter(torch.zeros(10)),
        )
        self.register_buffer("counter", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.counter += 1
        mixed = torch.einsum("bi,io->bo", images.flatten(1), self.weight)
        return mixed * torch.sigmoid(self.gate) * self.alpha


class Drawing(nn.Module):
    """Draws in every way: like tensors that lie transposed in memory, by size, whole numbers, an
    order."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(64, 10), config.drop

    def forward(self, images: Tensor) -> Tensor:
        x_OB = self.linear(images.flatten(1)).T
        if self.training:
            x_OB = x_OB + 0.1 * torch.rand_like(x_OB) + 0.1 * torch.randn_like(x_OB)
            x_OB = (
                x_OB
                + 0.1 * torch.rand(x_OB.shape, dtype=x_OB.dtype)
                + torch.randn(*x_OB.shape, dtype=x_OB.dtype)
            )
            x_OB = x_OB * torch.randint(1, 4, (10, 1))
            x_OB = x_OB + 0.1 * x_OB[torch.randperm(10)]
        return F.dropout(x_OB, self.drop, self.training).T


def channels_last(config: Config) -> nn.Module:
    return convolutional(config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def adamw(config: Config) -> Any:
    return functools.partial(
        torch.optim.AdamW, lr=config.lr, weight_decay=config.decay, betas=config.betas
    )


def sgd(config: Config) -> Any:
    return functools.partial(
        torch.optim.SGD, lr=config.lr * 20, weight_decay=config.decay, momentum=config.momentum
    )


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A model with its data and its optimizer. The attention's optimizer is SGD: its key bias has
    no gradient but rounding, and Adam makes whole steps of that."""

    model: Callable[[Config], nn.Module]
    optimizer: Callable[[Config], Any] = adamw
    has_text: bool = False

    def task(self, config: Config, *, dtype: torch.dtype = torch.float64, **fields: Any) -> Task:
        """A task of it; ``fields`` replace its own."""

        smoothing = config.smoothing

        def objective(model: nn.Module, batch: Any) -> Loss:
            inputs, targets = batch
            logits = model(inputs)
            flat = logits.reshape(-1, logits.shape[-1])
            loss = F.cross_entropy(flat, targets.reshape(-1), label_smoothing=smoothing)
            correct = (flat.argmax(dim=1) == targets.reshape(-1)).to(loss.dtype).mean()
            return Loss(
                total=loss * len(targets), weight=len(targets), metrics={"accuracy": correct}
            )

        train, valid = texts() if self.has_text else digits(dtype)
        given: dict[str, Any] = {
            "model": lambda: self.model(config).to(dtype), "objective": objective, "data": train,
            "valid": valid, "optimizer": self.optimizer(config), "batch_size": BATCH_SIZE,
            "duration": f"{NUM_STEPS}st", "seed": config.seed, "data_seed": 1,
            "clip_norm": config.clip_norm, "ema_decay": config.ema_decay,
            "schedule": cosine(warmup=config.warmup, final=0.1),
        }  # fmt: skip
        return Task(**{**given, **fields})

    def tasks(self, *, dtype: torch.dtype = torch.float64, **fields: Any) -> list[Task]:
        """One for each configuration."""
        return [self.task(config, dtype=dtype, **fields) for config in CONFIGS]


STRUCTURES = {
    "mlp": Structure(model=mlp),
    "mlp with SGD": Structure(model=mlp, optimizer=sgd),
    "convolutional": Structure(model=convolutional, optimizer=sgd),
    "convolutional with AdamW": Structure(model=convolutional),
    "attention": Structure(
        model=lambda config: Language(config, Scaled), optimizer=sgd, has_text=True
    ),
    "MultiheadAttention": Structure(
        model=lambda config: Language(config, ManyHeads), optimizer=sgd, has_text=True
    ),
    "GRU": Structure(model=lambda _: Recurrent(nn.GRU)),
    "LSTM": Structure(model=lambda _: Recurrent(nn.LSTM)),
    "of one's own": Structure(model=Gated),
    "drawing": Structure(model=Drawing, optimizer=sgd),
    "channels last": Structure(model=channels_last, optimizer=sgd),
}


def without_dropout(config: Config) -> Config:
    """The same, drawing nothing."""
    return replace(config, drop=0.0)
