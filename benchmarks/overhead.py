"""The engine's loop beside a hand-written raw PyTorch loop with the same knobs, model, batches and
optimizer.

    python benchmarks/overhead.py

One engine run and one raw loop in one process, in turn: a block of engine steps up to its next
logged line, then the same number of raw steps, and so on. The engine's block holds everything that
its loop does, the logged line included. The raw loop sets a cosine learning rate, keeps its losses
and reads their mean once a block, as such loops do.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Protocol

import torch
from sklearn.datasets import load_digits
from torch import nn

import volano
from on_device import baseline, device, take_device, words
from volano.data import Order


def classification(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)


def make_mlp(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def make_task(width: int, batch_size: int, steps: int) -> volano.Task:
    pixels, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(
        torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    )
    return volano.Task(
        model=functools.partial(make_mlp, width),
        objective=classification,
        data=data,
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        schedule=volano.cosine(),
        batch_size=batch_size,
        duration=f"{steps}st",
    )


class RawLoop:
    """The hand-written loop, a block at a time: ``run(n)`` makes the next ``n`` steps."""

    def __init__(self, task: volano.Task) -> None:
        torch.manual_seed(task.seed)
        self.model = task.model().to(device().torch_device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.inputs, self.labels = device().move(task.data.tensors)
        self.order = Order(num_examples=len(task.data), batch_size=task.batch_size, seed=task.seed)
        self.step, self.num_steps = 0, task.num_steps

    def run(self, count: int) -> None:
        losses = []
        for step in range(self.step, self.step + count):
            rows = device().move(torch.from_numpy(self.order.key(step).indices.copy()))
            x, y = self.inputs.index_select(0, rows), self.labels.index_select(0, rows)
            self.optimizer.param_groups[0]["lr"] = (
                1e-3 * 0.5 * (1 + math.cos(math.pi * (step + 0.5) / self.num_steps))
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        self.step += count
        torch.stack(losses).mean().item()


class Raw(Protocol):
    """A hand-written loop, a block at a time."""

    def run(self, count: int) -> None:
        """The next ``count`` steps."""


class Alternate(volano.Observer):
    """After each logged block of the engine's, the same number of raw steps; both are timed."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.seconds: dict[str, list[float]] = {"engine": [], "raw": []}
        self.last_step, self.count = 0, 0
        self.mark = time.perf_counter()

    def on_start(self, info: object) -> None:  # noqa: ARG002 - the observer's contract
        self.mark = time.perf_counter()

    def on_log(self, record: dict[str, float]) -> None:
        now = time.perf_counter()
        self.count = int(record["step"]) - self.last_step
        self.last_step = int(record["step"])
        self.raw.run(self.count)
        after = time.perf_counter()
        self.seconds["engine"].append((now - self.mark) / self.count)
        self.seconds["raw"].append((after - now) / self.count)
        self.mark = time.perf_counter()

    def pairs(self) -> list[tuple[float, float]]:
        """Seconds of a step, the engine's and the raw loop's, in neighbouring blocks. The first
        blocks warm up."""
        engine, raw = self.seconds["engine"][2:], self.seconds["raw"][2:]
        # Blocks alternate, so each engine block has a raw neighbour before and after it.
        neighbours = [(before + after) / 2 for before, after in itertools.pairwise(raw)]
        return list(zip(engine[1:], neighbours, strict=True))

    def throughput(self) -> str:
        """The engine's throughput over the raw loop's, in words."""
        pairs = self.pairs()
        ratios = [theirs / ours for ours, theirs in pairs]
        low, _, high = statistics.quantiles(ratios, n=4)
        ours, theirs = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
        return (
            f"raw {theirs:.1f} ms, engine {ours:.1f} ms a step; {len(pairs)} blocks of "
            f"{self.count} steps: "
            f"throughput of the engine over the raw loop's: median {statistics.median(ratios):.4f} "
            f"(quartiles {low:.3f} to {high:.3f})"
        )


def compare(name: str, width: int, batch_size: int, steps: int) -> None:
    task = make_task(width, batch_size, steps)
    watch = Alternate(RawLoop(task))
    plan = baseline().pin(optimizer="fused", feed="resident")
    with tempfile.TemporaryDirectory() as root:
        volano.train(task, plan=plan, out=Path(root) / "run", observer=watch)
    pairs = watch.pairs()
    engine, raw = zip(*pairs, strict=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    extra = [(ours - theirs) * 1e6 for ours, theirs in pairs]
    low, _, high = statistics.quantiles(ratios, n=4)
    print(
        f"{name}: raw {statistics.median(raw) * 1e3:.3f} ms, engine "
        f"{statistics.median(engine) * 1e3:.3f} ms a step; "
        f"{len(pairs)} blocks of {watch.count} steps: ratio median {statistics.median(ratios):.4f} "
        f"(quartiles {low:.3f} to {high:.3f}), extra median {statistics.median(extra):+.0f} us"
    )


def main() -> None:
    take_device()
    print(words())
    for _ in range(3):
        compare("small", width=128, batch_size=64, steps=9000)
        compare("large", width=1536, batch_size=256, steps=900)


if __name__ == "__main__":
    main()
