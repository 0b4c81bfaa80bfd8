"""A decoder of text with one option: depth. Shapes: B windows, T tokens, C channels, H heads, D
channels of a head, V tokens of the vocabulary.

The architecture is that of nanochat (Karpathy 2025): rotary positions (Su et al. 2021), normalised
queries and keys (Henry et al. 2020), squared ReLU (So et al. 2021), norms without parameters before
each part, no biases, projections into the residual stream that begin at zero, a head of its own,
and logits capped softly (Gemma 2, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_DIM = 64
# nanochat; logits stay within plus or minus this.
_SOFT_CAP = 15.0
_ROPE_BASE = 10_000.0


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """The numbers from which a decoder's weights follow.

    Attributes:
        vocab_size: V.
        context: the most tokens seen at once.
        depth: blocks; everything else follows.
        dropout: share of channels set to zero behind each part, in training.
    """

    vocab_size: int
    context: int
    depth: int
    dropout: float = 0.0

    @property
    def width(self) -> int:
        """The width C: 64 for each block, at least 128 (nanochat's option)."""
        return max(2 * HEAD_DIM, HEAD_DIM * self.depth)

    @property
    def num_matrix_parameters(self) -> int:
        """The number of weights of the blocks and the head: those that cost two operations each for
        a token forward."""
        return self.depth * 12 * self.width**2 + self.vocab_size * self.width

    @property
    def flops_per_token(self) -> int:
        """The operations of forward and backward for one token: 6 a weight, and attention over half
        the context on average (Kaplan et al. 2020, with the causal half)."""
        return 6 * self.num_matrix_parameters + 6 * self.depth * self.context * self.width


class Cache:
    """The keys and values of the tokens seen so far, for one text: fp32 [depth, 2, 1, H, context,
    D]."""

    def __init__(self, shape: DecoderShape, device: torch.device) -> None:
        heads = shape.width // HEAD_DIM
        self.store = torch.zeros(shape.depth, 2, 1, heads, shape.context, HEAD_DIM, device=device)
        self.length = 0


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x_BTC: Tensor, rotation: Tensor, layer_cache: Tensor | None, start: int
    ) -> Tensor:
        B, T, C = x_BTC.shape
        qkv = self.qkv(x_BTC).view(B, T, 3, C // HEAD_DIM, HEAD_DIM)
        qk = rotate(F.layer_norm(qkv[:, :, :2], (HEAD_DIM,)), rotation)
        q, k = qk[:, :, 0].transpose(1, 2), qk[:, :, 1].transpose(1, 2)
        v = qkv[:, :, 2].transpose(1, 2)
        if layer_cache is None:
            y_BHTD = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            layer_cache[0, :, :, start : start + T] = k
            layer_cache[1, :, :, start : start + T] = v
            keys = layer_cache[0, :, :, : start + T].to(q.dtype)
            values = layer_cache[1, :, :, : start + T].to(q.dtype)
            # One new token sees everything; several at the beginning see what lies before each.
            y_BHTD = F.scaled_dot_product_attention(q, keys, values, is_causal=T > 1)
        return self.out(y_BHTD.transpose(1, 2).reshape(B, T, C))


class _DecoderBlock(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BTC: Tensor, rotation: Tensor, layer_cache: Tensor | None, start: int
    ) -> Tensor:
        x_BTC = x_BTC + self.dropout(self.attention(_norm(x_BTC), rotation, layer_cache, start))
        return x_BTC + self.dropout(self.down(F.relu(self.up(_norm(x_BTC))).square()))


class Decoder(nn.Module):
    """A decoder: tokens int64 [B, T] in, logits fp32 [B, T, V] out; T is at most the context."""

    rotation: Tensor

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.embedding = nn.Embedding(shape.vocab_size, width)
        self.blocks = nn.ModuleList(_DecoderBlock(width, shape.dropout) for _ in range(shape.depth))
        self.head = nn.Linear(width, shape.vocab_size, bias=False)
        self.register_buffer("rotation", rotary_table(shape.context), persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        # nanochat: embedding of deviation 1, since a norm follows; matrices uniform with deviation
        # 1 / sqrt(C).
        bound = (3.0 / self.shape.width) ** 0.5
        for block in self.blocks:
            assert isinstance(block, _DecoderBlock)
            nn.init.uniform_(block.attention.qkv.weight, -bound, bound)
            nn.init.uniform_(block.up.weight, -bound, bound)
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.down.weight)
        nn.init.normal_(self.embedding.weight)
        nn.init.zeros_(self.head.weight)

    def features(self, tokens_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """Computes what the head reads, [B, T, C]. With a cache, ``tokens_BT`` follow those that it
        holds: one text, and more than one token only into an empty cache."""
        start = 0 if cache is None else cache.length
        T = tokens_BT.shape[1]
        rotation = self.rotation[:, start : start + T]
        x_BTC = _norm(self.embedding(tokens_BT))
        if torch.is_autocast_enabled(x_BTC.device.type):
            x_BTC = x_BTC.to(torch.get_autocast_dtype(x_BTC.device.type))
        rotation = rotation.to(x_BTC.dtype)
        for number, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, rotation, None if cache is None else cache.store[number], start)
        if cache is not None:
            cache.length += T
        return _norm(x_BTC)

    def forward(self, tokens_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """Runs the forward pass; see the class, and with a cache :meth:`features`."""
        return self.logits(self.features(tokens_BT, cache))

    def logits(self, features: Tensor) -> Tensor:
        """Computes the logits fp32 [..., V] of features [..., C]."""
        return _SOFT_CAP * torch.tanh(self.head(features).float() / _SOFT_CAP)


def rotary_table(context: int) -> Tensor:
    """Returns the cosines and sines fp32 [2, context, 1, 1, D / 2] of the rotary angles (Su et al.
    2021)."""
    frequencies = _ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angles = torch.outer(torch.arange(context, dtype=torch.float64), frequencies)
    return torch.stack([angles.cos(), angles.sin()]).float()[:, :, None, None, :]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Returns ``x`` [B, T, 2, H, D] with each pair of channels turned by its position's angle."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _norm(x: Tensor) -> Tensor:
    # Without parameters. Not the RMS norm: in eager bf16 on CPUs that is eight times slower, and
    # the mean of a few hundred channels is close to zero anyway. The same on every device, so that
    # a run means the same everywhere.
    return F.layer_norm(x, (x.shape[-1],))


def parameter_groups(
    model: nn.Module,
    *,
    matrix_lr: float,
    embedding_lr: float,
    head_lr: float,
    weight_decay: float,
    ns_steps: int,
) -> list[dict[str, Any]]:
    """Returns the groups for ``MuonAdamW``: Muon for the matrices of the blocks, AdamW for
    embedding and head."""
    assert isinstance(model, Decoder)
    # Nanochat.
    adamw = {"algorithm": "adamw", "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": 0.0}
    return [
        {
            "params": list(model.blocks.parameters()),
            "algorithm": "muon",
            "lr": matrix_lr,
            "weight_decay": weight_decay,
            "ns_steps": ns_steps,
        },
        {"params": [model.embedding.weight], "lr": embedding_lr, **adamw},
        {"params": [model.head.weight], "lr": head_lr, **adamw},
    ]
