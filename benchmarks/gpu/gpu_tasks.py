"""The nets and tasks of the accelerator's check: a residual net for 32 x 32 pixels, GPT-2 small, a
perceptron. With ``small`` they are of the same kind and take no time."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import volano
from volano import Task
from volano.data import Arrays


class Residual(nn.Module):
    """Two convolutions with norms beside a short cut (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outer) for _ in range(2))
        is_same = (inner, stride) == (outer, 1)
        cut = [nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)]
        self.cut = nn.Identity() if is_same else nn.Sequential(*cut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inside)) + self.cut(x))


def resnet(width: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
    inner = width
    for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
        layers.append(Residual(inner, factor * width, stride))
        inner = factor * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 10))


class DecoderBlock(nn.Module):
    """Attention and a feed-forward layer, normed before."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.norm_in, self.norm_up = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        B, T, C = x_BTC.shape
        split = self.qkv(self.norm_in(x_BTC)).view(B, T, 3, self.heads, C // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTC = x_BTC + self.drop(self.out(mixed.transpose(1, 2).reshape(B, T, C)))
        return x_BTC + self.drop(self.down(F.gelu(self.up(self.norm_up(x_BTC)))))


class Gpt(nn.Module):
    """A decoder with learned positions and tied embeddings (GPT-2)."""

    def __init__(
        self, width: int, depth: int, length: int, vocabulary: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        heads = max(2, width // 64)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, dropout) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids_BT) + self.places.weight[: ids_BT.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def classify(model: nn.Module, batch: Any) -> torch.Tensor:
    images, labels = batch
    return F.cross_entropy(model(images.float() / 128 - 1), labels)


def next_token(model: nn.Module, batch: Any) -> torch.Tensor:
    ids = batch.long()
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def perceptron(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


class GpuTasks:
    """The tasks in their full or small size."""

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.vocabulary, self.length = (256, 32) if small else (50304, 1024)

    def resnet(self, *, steps: int = 2000, batch: int | None = None, **fields: Any) -> Task:
        draws = torch.Generator().manual_seed(0)
        count = 256 if self.small else 2048
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draws)
        base: dict[str, Any] = {
            "model": functools.partial(resnet, 8 if self.small else 64),
            "objective": classify,
            "data": Arrays((images, torch.randint(0, 10, (count,), generator=draws))),
            "optimizer": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
            "batch_size": batch or (32 if self.small else 512),
            "duration": f"{steps}st",
            "name": "resnet",
        }
        return Task(**{**base, **fields})

    def gpt(
        self, *, steps: int = 2000, batch: int | None = None, dropout: float = 0.0, **fields: Any
    ) -> Task:
        draws = torch.Generator().manual_seed(0)
        shape = (64 if self.small else 256, self.length + 1)
        ids = torch.randint(0, self.vocabulary, shape, dtype=torch.int32, generator=draws)
        width, depth = (32, 2) if self.small else (768, 12)
        base: dict[str, Any] = {
            "model": functools.partial(Gpt, width, depth, self.length, self.vocabulary, dropout),
            "objective": next_token,
            "data": Arrays(ids),
            "optimizer": functools.partial(torch.optim.AdamW, lr=3e-4),
            "batch_size": batch or (4 if self.small else 16),
            "duration": f"{steps}st",
            "clip_norm": 1.0,
            "name": "gpt2",
        }
        return Task(**{**base, **fields})

    def perceptron(
        self, *, steps: int = 400, dropout: float = 0.0, lr: float = 1e-3,
        is_evaluated: bool = False, **fields: Any,
    ) -> Task:  # fmt: skip
        pixels, classes = load_digits(return_X_y=True)
        inputs, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(classes)
        rows, others = (
            torch.utils.data.TensorDataset(inputs[part], labels[part])
            for part in (slice(1536), slice(1536, None))
        )
        base: dict[str, Any] = {
            "model": functools.partial(perceptron, dropout),
            "objective": cross_entropy,
            "data": rows,
            "valid": others if is_evaluated else None,
            "optimizer": functools.partial(torch.optim.AdamW, lr=lr),
            "batch_size": 64,
            "duration": f"{steps}st",
            "data_seed": 0,
            "name": "perceptron",
        }
        return Task(**{**base, **fields})


def weights(run: volano.Run) -> torch.Tensor:
    """All parameters and buffers in one row, on the host."""
    state = run.model.state_dict()
    return torch.cat([tensor.detach().cpu().double().flatten() for tensor in state.values()])
