"""A dataset that you have: torchvision-style, with a transform of its own, and batches that are
dicts.

    volano train examples/own_dataset.py:task --out runs/own-dataset --workers 1

The random shift is drawn from torch's global generator, as torchvision's transforms do. Volano
seeds it per example, so that the run is the same with any number of workers.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset

import volano


class Digits(Dataset):
    """``dataset[index]`` is a dict of an image fp32 [1, 8, 8] and a label."""

    def __init__(
        self, *, train: bool, transform: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        pixels, labels = load_digits(return_X_y=True)
        rows = slice(None, 1500) if train else slice(1500, None)
        self.images, self.labels = pixels[rows].reshape(-1, 1, 8, 8), labels[rows]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.tensor(self.images[index], dtype=torch.float32) / 16
        if self.transform is not None:
            image = self.transform(image)
        return {"image": image, "label": int(self.labels[index])}


def random_shift(image: torch.Tensor) -> torch.Tensor:
    down, right = torch.randint(0, 3, (2,)).tolist()
    return nn.functional.pad(image, (1, 1, 1, 1))[:, down : down + 8, right : right + 8]


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3,
        padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def objective(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch["image"]), batch["label"])


def task() -> volano.Task:
    return volano.Task(
        name="own-dataset",
        model=make_model,
        objective=objective,
        data=Digits(train=True, transform=random_shift),
        valid=Digits(train=False),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        schedule=volano.linear(),
        batch_size=100,
        duration="3ep",
    )
