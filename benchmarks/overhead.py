"""The engine's loop beside a hand-written raw PyTorch loop with the same knobs, model, batches and optimizer.

    python benchmarks/overhead.py

Both run whole trainings in turn. The engine's time is its `train` phase: everything in its loop, logging included,
without preparation, evaluation and the checkpoint at the end. The raw loop keeps a list of its losses and reads their
mean as often as the engine logs, and sets a cosine learning rate, as such loops do.
"""

from __future__ import annotations

import functools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import volano
from volano.data import Order

PAIRS = int(os.environ.get("PAIRS", "15"))


def classification(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)


def make_mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def make_task(width: int, batch_size: int, steps: int) -> volano.Task:
    pixels, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels))
    return volano.Task(
        model=functools.partial(make_mlp, width),
        objective=classification,
        data=data,
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        schedule=volano.cosine(),
        batch_size=batch_size,
        duration=f"{steps}st",
    )


def raw_loop(task: volano.Task, steps: int) -> float:
    """Seconds of the loop."""
    torch.manual_seed(task.seed)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    inputs, labels = task.data.tensors
    order = Order(num_examples=len(task.data), batch_size=task.batch_size, seed=task.seed)
    every = max(1, min(100, steps // 100))
    losses = []
    start = time.perf_counter()
    for step in range(steps):
        rows = torch.from_numpy(order.key(step).indices.copy())
        x, y = inputs.index_select(0, rows), labels.index_select(0, rows)
        optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * (step + 0.5) / steps))
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if (step + 1) % every == 0:
            torch.stack(losses).mean().item()
            losses = []
    return time.perf_counter() - start


def engine(task: volano.Task, folder: Path) -> float:
    """Seconds of the engine's loop."""
    plan = volano.Plan.baseline().pin(optimizer="fused", feed="resident")
    return volano.train(task, plan=plan, out=folder, observer=volano.Observer()).seconds["train"]


def compare(name: str, width: int, batch_size: int, steps: int) -> None:
    task = make_task(width, batch_size, steps)
    raw: list[float] = []
    ours: list[float] = []
    with tempfile.TemporaryDirectory() as root:
        runs: list[Callable[[int], None]] = [
            lambda _: raw.append(raw_loop(task, steps) / steps),
            lambda number: ours.append(engine(task, Path(root) / f"{name}{number}") / steps),
        ]
        for number in range(PAIRS + 1):
            for run in runs if number % 2 else reversed(runs):
                run(number)
    raw, ours = raw[1:], ours[1:]  # the first pair warms up
    ratios = [b / a for a, b in zip(raw, ours, strict=True)]
    extra = [(b - a) * 1e6 for a, b in zip(raw, ours, strict=True)]
    print(
        f"{name:>9}  raw {statistics.median(raw) * 1e3:7.3f} ms  engine {statistics.median(ours) * 1e3:7.3f} ms  "
        f"ratio median {statistics.median(ratios):.4f} (min {min(ratios):.3f}, max {max(ratios):.3f})  "
        f"extra median {statistics.median(extra):+.0f} us"
    )


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {PAIRS} pairs")
    compare("small", width=128, batch_size=64, steps=3000)
    compare("large", width=1536, batch_size=256, steps=60)


if __name__ == "__main__":
    main()
