"""The default plan beside the loop of the tutorials, on Fashion-MNIST with the same four-layer
convolutional net.

    python benchmarks/tutorial_loop.py [FOLDER OF THE IDX FILES]

The tutorial's loop: a Dataset that scales and normalises each image when it is asked for, a
DataLoader with its defaults (and, second, with a worker process), fp32, `zero_grad`, `backward`,
`step`. Ours: the same net behind the same normalisation on the device, the default plan, and the
same with `--precision bf16`. Whole trainings of 100 steps in turn; start-up (building, first batch,
workers) is counted for all.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import volano
from on_device import device, take_device
from volano.data.sources import read_image_sets

STEPS, BATCH, ROUNDS = 100, 128, 5
MEAN, STD = 0.2860, 0.3530  # of Fashion-MNIST's training pixels, in 0..1


def make_net() -> nn.Module:
    """Four convolutions."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (32, 64, 128, 128):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if width != 32 else []
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 10))


class OnBytes(nn.Module):
    """The same net with the normalisation inside."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net((images.float() / 255 - MEAN) / STD)


class PerSample(Dataset):
    """Images transformed one by one, as torchvision's ToTensor and Normalize do."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (self.images[index].float() / 255 - MEAN) / STD, self.labels[index]


def tutorial(images: torch.Tensor, labels: torch.Tensor, workers: int) -> None:
    torch.manual_seed(0)
    loader = DataLoader(
        PerSample(images, labels), batch_size=BATCH, shuffle=True, num_workers=workers
    )
    model, loss_function = make_net().to(device().torch_device), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for step, (x, y) in enumerate(loader):
        x, y = device().move((x, y))
        loss = loss_function(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step + 1 == STEPS:
            break
    device().synchronize()


def objective(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def ours(images: torch.Tensor, labels: torch.Tensor, folder: Path, pins: dict[str, str]) -> None:
    task = volano.Task(
        model=OnBytes,
        objective=objective,
        data=volano.Arrays((images, labels)),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        batch_size=BATCH,
        duration=f"{STEPS}st",
    )
    volano.train(task, out=folder, device=device().name, pins=pins, observer=volano.Observer())


def main() -> None:
    take_device()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
    train = read_image_sets(folder).train
    images, labels = train.images, train.labels
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as root:
        contestants: dict[str, Callable[[int], None]] = {
            "tutorial": lambda _: tutorial(images, labels, 0),
            "tutorial, 1 worker": lambda _: tutorial(images, labels, 1),
            "default plan": lambda n: ours(images, labels, Path(root) / f"a{n}", {}),
            "contiguous": lambda n: ours(
                images, labels, Path(root) / f"b{n}", {"memory_format": "contiguous"}
            ),
            "bf16": lambda n: ours(images, labels, Path(root) / f"c{n}", {"precision": "bf16"}),
        }
        for number in range(ROUNDS + 1):
            for name, run in contestants.items():
                start = time.perf_counter()
                run(number)
                if number:  # the first round warms up
                    seconds.setdefault(name, []).append(time.perf_counter() - start)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {ROUNDS} rounds of "
        f"{STEPS} steps of {BATCH}"
    )
    for name, values in seconds.items():
        against = [
            statistics.median(a / b for a, b in zip(seconds[peer], values, strict=True))
            for peer in list(seconds)[:2]
        ]
        print(
            f"{name:>18}  {statistics.median(values):6.2f} s (min {min(values):.2f}, max "
            f"{max(values):.2f})  "
            f"x{against[0]:.2f} against the tutorial, x{against[1]:.2f} against it with a worker"
        )


if __name__ == "__main__":
    main()
