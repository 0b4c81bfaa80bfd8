"""The models and plans on which predictions of memory are judged: multilayer perceptron, residual
net, transformer, LSTM, and the text application's decoder, on random data of bundled shapes."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from on_device import baseline
from volano import Plan, Task
from volano.apps.text.network import Decoder, DecoderShape
from volano.data import Arrays

NUM_EXAMPLES, NUM_CLASSES = 512, 10


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Mean over the examples, or over all tokens of them."""
    inputs, labels = batch
    return F.cross_entropy(model(inputs).flatten(0, -2), labels.flatten())


class Residual(nn.Module):
    """Two convolutions with batch normalisation, added to their input (He et al. 2016)."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(channels, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        same = stride == 1 and channels == outputs
        self.short = nn.Identity() if same else nn.Conv2d(channels, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] in, [N, outputs, H / stride, W / stride] out."""
        return F.relu(self.second(self.first(x)) + self.short(x))


class Recurrent(nn.Module):
    """A sequence [N, T, C] read by two layers of LSTM; the class from the last state."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, C] in, logits [N, classes] out."""
        return self.head(self.lstm(x)[0][:, -1])


def perceptron() -> nn.Module:
    """Width 1024."""
    return nn.Sequential(
        nn.Linear(784, 1024),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Linear(1024, NUM_CLASSES),
    )


def residual_net() -> nn.Module:
    """Eight blocks of 32 to 128 channels."""
    widths = [(32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Sequential(*(Residual(*width) for width in widths)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, NUM_CLASSES),
    )  # fmt: skip


def transformer() -> nn.Module:
    """Four layers of width 128 over 32 tokens."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.1, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return nn.Sequential(
        nn.Linear(24, 128), encoder, nn.Flatten(), nn.Linear(32 * 128, NUM_CLASSES)
    )


def decoder() -> nn.Module:
    """The text application's, of depth 4."""
    return Decoder(DecoderShape(vocab_size=2000, context=128, depth=4))


_SHAPES = {"perceptron": (784,), "residual": (3, 32, 32), "transformer": (32, 24), "lstm": (32, 24)}
_MODELS = {
    "perceptron": perceptron,
    "residual": residual_net,
    "transformer": transformer,
    "lstm": functools.partial(Recurrent, 24, 128),
    "decoder": decoder,
}
_BATCHES = {"perceptron": 256, "residual": 64, "transformer": 64, "lstm": 64, "decoder": 16}


def make_task(name: str, *, batch_size: int | None = None, optimizer: str = "AdamW") -> Task:
    """The task of a model by name; its data is random."""
    generator = torch.Generator().manual_seed(0)
    if name == "decoder":
        tokens = torch.randint(2000, (NUM_EXAMPLES, 129), generator=generator)
        data = Arrays((tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()))
    else:
        labels = torch.randint(NUM_CLASSES, (NUM_EXAMPLES,), generator=generator)
        data = Arrays((torch.rand((NUM_EXAMPLES, *_SHAPES[name]), generator=generator), labels))
    return Task(
        name=name,
        model=_MODELS[name],
        objective=cross_entropy,
        data=data,
        optimizer=functools.partial(getattr(torch.optim, optimizer), lr=1e-4),
        batch_size=batch_size or _BATCHES[name],
        duration="4st",
        clip_norm=1.0,
    )


def cases() -> list[tuple[str, Task, Plan]]:
    """(name, task, plan): every model under several micro-batches, precisions, formats, and with
    recompute."""
    base = baseline()
    plans = {
        "fp32": base,
        "fp32 in quarters": base,
        "bf16": base.pin(precision="bf16"),
        "recompute": base.pin(recompute="blocks"),
    }
    made = []
    for name in _MODELS:
        task = make_task(name)
        for label, plan in plans.items():
            if label == "recompute" and name in ("perceptron", "lstm"):
                continue  # nothing repeats
            pinned = (
                plan.pin(micro_batch=task.batch_size // 4) if label == "fp32 in quarters" else plan
            )
            made.append((f"{name}, {label}", task, pinned))
    made.append(
        ("residual, channels last", make_task("residual"), base.pin(memory_format="channels_last"))
    )
    made.append(
        (
            "decoder, fused",
            make_task("decoder"),
            base.pin(optimizer="fused", recompute="blocks", micro_batch=4),
        )
    )
    return made
