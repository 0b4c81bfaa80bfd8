"""The tasks on which planning is measured: the three applications, and three models of other kinds.
Embedded data."""

from __future__ import annotations

import dataclasses
import functools
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import volano
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.apps.text.application import TextApplication
from volano.apps.text.options import TextOptions
from volano.apps.video.application import VideoApplication
from volano.apps.video.options import VideoOptions

NAMES = ("image", "text", "video", "mlp", "resnet", "lstm")


def make_task(name: str, steps: int, tolerance: str = "precision") -> volano.Task:
    """One of :data:`NAMES`, without evaluations in between."""
    task = _MAKERS[name](steps)
    every = f"{max(steps, 1)}st"
    return dataclasses.replace(
        task, tolerance=tolerance, evaluate_every=every, preview=None, name=name
    )


def classification(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def next_character(model: nn.Module, batch: Tensor) -> Tensor:
    ids = batch.long()
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(h + self.shortcut(x))


def make_resnet(width: int = 32) -> nn.Module:
    """Eight blocks, as in ResNet-18, with a stem for small images and half its width."""
    layers: list[nn.Module] = [
        nn.Conv2d(1, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
        layers.append(Block(inputs, factor * width, stride))
        inputs = factor * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


class CharacterLstm(nn.Module):
    """Two layers of 256 units over bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, 128)
        self.layers = nn.LSTM(128, 256, 2, batch_first=True)
        self.head = nn.Linear(256, 128)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(ids_BT))[0])


def make_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def _digits(side: int | None = None) -> torch.utils.data.TensorDataset:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32) / 16
    if side is not None:
        images = F.interpolate(images.view(-1, 1, 8, 8), size=side)
    return torch.utils.data.TensorDataset(images, torch.tensor(labels))


def _mlp(steps: int) -> volano.Task:
    return volano.Task(
        model=make_mlp, objective=classification, data=_digits(), batch_size=64,
        duration=f"{steps}st", optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
    )  # fmt: skip


def _resnet(steps: int) -> volano.Task:
    return volano.Task(
        model=make_resnet, objective=classification, data=_digits(32), batch_size=64,
        duration=f"{steps}st", optimizer=functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    )  # fmt: skip


def _lstm(steps: int) -> volano.Task:
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:60])
    ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).clamp(max=127)
    rows = len(ids) // 129
    return volano.Task(
        model=CharacterLstm, objective=next_character,
        data=volano.Arrays(ids[: rows * 129].view(rows, 129)), batch_size=32,
        duration=f"{steps}st", clip_norm=1.0, optimizer=functools.partial(torch.optim.AdamW,
        lr=1e-3),
    )  # fmt: skip


def _image(steps: int) -> volano.Task:
    return ImageApplication.read(ImageOptions()).task(steps)


def _text(steps: int) -> volano.Task:
    folder = Path(tempfile.mkdtemp())  # the tokens are mapped for as long as the task lives
    return TextApplication.read(TextOptions(), folder).with_shape(depth=3, batch_size=8).task(steps)


def _video(steps: int) -> volano.Task:
    return VideoApplication.read(VideoOptions()).task(steps)


_MAKERS: dict[str, Any] = {
    "image": _image, "text": _text, "video": _video, "mlp": _mlp, "resnet": _resnet, "lstm": _lstm
}  # fmt: skip
