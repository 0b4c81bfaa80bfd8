"""Two ranks with one thread each beside one process with two threads: examples per second while
training.

    python benchmarks/two_ranks.py

Whole runs in turn, A B A B; the figure of a run is the median of its logged throughput, so that
start-up does not count (it is printed besides). The goal is a ratio of at least 0.9.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import volano
from volano.data.sources import read_image_sets

FASHION = Path("/usr/share/datasets/fashion-mnist")
ROUNDS = 4


def make_net() -> nn.Module:
    """A convolutional net with BatchNorm, whose statistics ranks exchange."""
    widths = [(1, 32), (32, 64), (64, 128)]
    layers: list[nn.Module] = []
    for before, after in widths:
        layers += [
            nn.Conv2d(before, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 10))


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, 0.0, batch_first=True, norm_first=True
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def make_transformer() -> nn.Module:
    """Rows of an image as tokens."""
    return nn.Sequential(
        nn.Linear(28, 128), Block(128), Block(128), nn.Flatten(), nn.Linear(128 * 28, 10)
    )


def on_images(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0].float() / 255), batch[1])


def on_rows(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0].float().flatten(1, 2) / 255), batch[1])


def make_task(model, objective, steps: int) -> volano.Task:
    train = read_image_sets(FASHION).train
    return volano.Task(
        model=model,
        objective=objective,
        data=volano.Arrays((train.images, train.labels)),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        batch_size=256,
        duration=f"{steps}st",
    )


def convolutions() -> volano.Task:
    return make_task(make_net, on_images, 120)


def transformer() -> volano.Task:
    return make_task(make_transformer, on_rows, 120)


def run(name: str, processes: int, folder: Path) -> tuple[float, float]:
    """Median examples per second, and seconds of the whole command."""
    command = [
        sys.executable,
        "-m",
        "volano",
        "train",
        f"{__file__}:{name}",
        "--out",
        str(folder),
        "--json",
    ]
    command += ["--nproc", str(processes)] if processes > 1 else ["--threads", "2"]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise SystemExit(child.stderr)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    speeds = [
        record["examples_per_second"] for record in records if "examples_per_second" in record
    ]
    seconds = json.loads(child.stdout.splitlines()[-1])["seconds"]["total"]
    return statistics.median(speeds[len(speeds) // 4 :]), seconds


def main() -> None:
    for name in ("convolutions", "transformer"):
        ratios, alone, together = [], [], []
        for number in range(ROUNDS):
            with tempfile.TemporaryDirectory() as root:
                alone.append(run(name, 1, Path(root) / f"one{number}"))
                together.append(run(name, 2, Path(root) / f"two{number}"))
            ratios.append(together[-1][0] / alone[-1][0])
        print(
            f"{name}: one process, two threads "
            f"{statistics.median(speed for speed, _ in alone):,.0f} examples/s; "
            f"two ranks, one thread each {statistics.median(speed for speed, _ in together):,.0f}; "
            f"ratio {statistics.median(ratios):.3f} (pairs "
            f"{', '.join(f'{ratio:.3f}' for ratio in ratios)}); "
            f"whole runs {statistics.median(s for _, s in alone):.1f} "
            f"and {statistics.median(s for _, s in together):.1f} s"
        )


if __name__ == "__main__":
    main()
