"""The tasks on which packs and studies are measured, and their spaces: B1 digits, B2 fashion, B3
characters.

Each is ``build(trial) -> volano.Task`` with an Optuna trial. The order of the data is the same for
every configuration (``data_seed``); the initial weights and the draws are each configuration's own
(``seed``).
"""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import volano

FASHION = Path("/usr/share/datasets/fashion-mnist")
NUM_IMAGES, NUM_VALID_IMAGES = 10_000, 2_000
MEAN, STD = 0.2860, 0.3530  # of Fashion-MNIST's training pixels, in 0..1
CONTEXT, NUM_BYTES = 64, 128

# A pair is a range on a logarithmic scale, a list are choices, a range are whole numbers.
Space = Mapping[str, Any]
SPACES: dict[str, Space] = {
    "b1": {
        "lr": (1e-4, 1e-2),
        "weight_decay": [0.0, 0.01, 0.02],
        "beta2": [0.9, 0.99],
        "dropout": [0.0, 0.1, 0.2, 0.3],
        "smoothing": [0.0, 0.05, 0.1],
        "seed": range(1000),
    },
    "b2": {
        "lr": (1e-3, 0.3),
        "momentum": [0.8, 0.9, 0.95],
        "weight_decay": [0.0, 1e-4, 5e-4],
        "smoothing": [0.0, 0.05, 0.1],
        "seed": range(1000),
    },
    "b3": {
        "lr": (3e-4, 1e-2),
        "weight_decay": [0.0, 0.01, 0.1],
        "warmup": [0.0, 0.05, 0.1, 0.2],
        "dropout": [0.0, 0.1, 0.2],
        "seed": range(1000),
    },
}


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """A configuration, as Optuna's trial gives it."""
    params: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, tuple):
            params[name] = trial.suggest_float(name, *values, log=True)
        elif isinstance(values, range):
            params[name] = trial.suggest_int(name, values.start, values.stop - 1)
        else:
            params[name] = trial.suggest_categorical(name, values)
    return params


def sample(name: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Configurations drawn at random."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [suggest(study.ask(), SPACES[name]) for _ in range(count)]


class Fixed:
    """A trial whose values are known. Optuna's own would have to be imported in each of Ray's
    processes."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        del low, high, log
        return self.params[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        del low, high
        return self.params[name]

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        del choices
        return self.params[name]


def make_task(name: str, params: Mapping[str, Any]) -> volano.Task:
    """The task of a configuration."""
    return BUILDS[name](Fixed(params))


# ---- B1


def make_mlp(dropout: float) -> nn.Module:
    """64-128-128-10."""
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(128, 128), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(128, 10),
    )  # fmt: skip


def classification(
    model: nn.Module, batch: tuple[Tensor, Tensor], smoothing: float
) -> Tensor | volano.Loss:
    """Smoothed cross entropy for steps; cross entropy and accuracy for evaluations."""
    inputs, labels = batch
    logits = model(inputs)
    if model.training:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    accuracy = (logits.argmax(1) == labels).float().mean()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return volano.Loss(total=loss, weight=len(labels), metrics={"accuracy": accuracy})


@functools.cache
def digits() -> tuple[volano.Arrays, volano.Arrays]:
    """1,536 images to train on and 261 to validate, float32 [64] in 0..1."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, classes = (
        torch.tensor(pixels, dtype=torch.float32)[order] / 16,
        torch.tensor(labels)[order],
    )
    return volano.Arrays((images[:1536], classes[:1536])), volano.Arrays(
        (images[1536:], classes[1536:])
    )


def b1(trial: Any, epochs: int = 20) -> volano.Task:
    """Digits, an MLP, AdamW."""
    params = suggest(trial, SPACES["b1"])
    train, valid = digits()
    return volano.Task(
        model=functools.partial(make_mlp, params["dropout"]),
        objective=functools.partial(classification, smoothing=params["smoothing"]),
        data=train,
        valid=valid,
        optimizer=functools.partial(
            torch.optim.AdamW,
            lr=params["lr"],
            weight_decay=params["weight_decay"],
            betas=(0.9, params["beta2"]),
        ),
        batch_size=32,
        duration=f"{epochs}ep",
        seed=params["seed"],
        data_seed=0,
        name="b1",
    )


# ---- B2


def make_net() -> nn.Module:
    """Two convolutions with BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip


@functools.cache
def fashion() -> tuple[volano.Arrays, volano.Arrays]:
    """10,000 images to train on and 2,000 to validate, of the training set; float32 [1, 28, 28],
    normalised."""
    from volano.data.sources import read_image_sets

    both = read_image_sets(FASHION).train
    total = NUM_IMAGES + NUM_VALID_IMAGES
    images, labels = (both.images[:total].float() / 255 - MEAN) / STD, both.labels[:total]
    return (
        volano.Arrays((images[:NUM_IMAGES], labels[:NUM_IMAGES])),
        volano.Arrays((images[NUM_IMAGES:], labels[NUM_IMAGES:])),
    )


def b2(trial: Any, epochs: int = 3) -> volano.Task:
    """Clothes, a convolutional net, SGD with momentum."""
    params = suggest(trial, SPACES["b2"])
    train, valid = fashion()
    return volano.Task(
        model=make_net,
        objective=functools.partial(classification, smoothing=params["smoothing"]),
        data=train,
        valid=valid,
        optimizer=functools.partial(
            torch.optim.SGD,
            lr=params["lr"],
            momentum=params["momentum"],
            weight_decay=params["weight_decay"],
        ),
        batch_size=128,
        duration=f"{epochs}ep",
        seed=params["seed"],
        data_seed=0,
        name="b2",
    )


# ---- B3


class Block(nn.Module):
    """A pre-norm transformer layer with four heads (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (4, -1)).transpose(1, 2)
            for part in self.qkv(self.first_norm(x_BTD)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        x_BTD = x_BTD + self.dropout(self.out(mixed))
        return x_BTD + self.dropout(self.narrow(F.gelu(self.wide(self.second_norm(x_BTD)))))


class Characters(nn.Module):
    """Two layers of 64 over bytes."""

    def __init__(self, dropout: float, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(NUM_BYTES, width), nn.Embedding(CONTEXT, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, dropout) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, NUM_BYTES)
        self.register_buffer("positions", torch.arange(CONTEXT))

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.dropout(self.tokens(ids_BT) + self.places(self.positions))
        return self.head(self.norm(self.blocks(x_BTD)))


def next_character(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross entropy in nats."""
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


@functools.cache
def sources() -> tuple[volano.Arrays, volano.Arrays]:
    """Rows of 65 bytes of Python's standard library: 8,192 to train on and 256 to validate."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:40])
    count = 8192 + 256
    ids = torch.frombuffer(bytearray(text), dtype=torch.uint8)[: count * (CONTEXT + 1)].clamp(
        max=NUM_BYTES - 1
    )
    rows = ids.long().view(count, CONTEXT + 1)
    return volano.Arrays(rows[:8192].clone()), volano.Arrays(rows[8192:].clone())


def b3(trial: Any, steps: int = 300) -> volano.Task:
    """Source code, a small transformer, AdamW with a warm-up."""
    params = suggest(trial, SPACES["b3"])
    train, valid = sources()
    return volano.Task(
        model=functools.partial(Characters, params["dropout"]),
        objective=next_character,
        data=train,
        valid=valid,
        optimizer=functools.partial(
            torch.optim.AdamW, lr=params["lr"], weight_decay=params["weight_decay"]
        ),
        schedule=volano.constant(warmup=params["warmup"]),
        batch_size=16,
        duration=f"{steps}st",
        seed=params["seed"],
        data_seed=0,
        name="b3",
    )


BUILDS: dict[str, Callable[..., volano.Task]] = {"b1": b1, "b2": b2, "b3": b3}
