"""Predicted step times beside measured ones on this machine, and whether they put plans in the
right order.

    python benchmarks/time_prediction.py [--no-compile] [--seconds 2] [--json FILE]
    python benchmarks/time_prediction.py --operations

Five tasks (two multilayer perceptrons, a residual network, a transformer, an LSTM) under plans that
differ in precision, memory format, compilation and allocator. Three predictions of each step: from
the operations and the machine's measured limits; the same, corrected by what was measured of the
*other* tasks; and corrected by the task's own plain step as well, as a race knows it after its
first heat. For each the median error, and the rank correlation of the plans of a task (Spearman),
which is what a planner needs. About five minutes; without compilation one.

``--operations`` times each operation of these steps by itself and prints what share of the limits
it reaches: where the efficiencies for CPUs in planner/time/roofline.py come from. Half a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

import volano
from on_device import baseline, device, take_device
from volano.device import Device, measure_kernels, measure_limits
from volano.plan import Plan
from volano.plan.prediction import TimePrediction
from volano.planner.memory.predict import predict_memory
from volano.planner.time.calibration import Calibration
from volano.planner.time.operations import describe_operation, is_computation
from volano.planner.time.roofline import Rates, predict_time
from volano.training import measure_step_time

WANTED = 0.8


class Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.straight = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.short = (
            nn.Conv2d(inner, outer, 1, stride, bias=False) if stride != 1 else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.straight(x) + self.short(x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, *, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.mixed(self.first(x)).view(batch, length, 3, self.heads, width // self.heads)
        attended = F.scaled_dot_product_attention(
            *parts.permute(2, 0, 3, 1, 4), is_causal=self.causal
        )
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.wide(self.second(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer, self.head = (
            nn.Embedding(256, 128),
            nn.LSTM(128, 256, batch_first=True),
            nn.Linear(256, 256),
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embedding(ids))[0])


def make_mlp(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def make_residual() -> nn.Module:
    blocks = [Residual(32, 32, 1), Residual(32, 64, 2), Residual(64, 128, 2), Residual(128, 256, 2)]
    stem = [nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def make_transformer() -> nn.Module:
    blocks = [Block(192, 6) for _ in range(4)]
    return nn.Sequential(nn.Embedding(256, 192), *blocks, nn.LayerNorm(192), nn.Linear(192, 256))


def classify(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs).flatten(0, -2), labels.flatten())


def tasks() -> dict[str, volano.Task]:
    """Random data: what is computed does not depend on it."""
    draw = torch.Generator().manual_seed(0)

    def task(
        model: Callable[[], nn.Module], rows: torch.Tensor, labels: tuple[int, ...], batch_size: int
    ) -> volano.Task:
        wanted = torch.randint(10 if len(labels) == 1 else 256, labels, generator=draw)
        optimizer = partial(torch.optim.AdamW, lr=1e-3)
        return volano.Task(
            model=model,
            objective=classify,
            data=TensorDataset(rows, wanted),
            optimizer=optimizer,
            batch_size=batch_size,
            duration="100000st",
        )

    flat, images = (
        torch.randn(512, 784, generator=draw),
        torch.randn(128, 3, 32, 32, generator=draw),
    )
    ids = torch.randint(256, (64, 128), generator=draw)
    return {
        "perceptron, small": task(partial(make_mlp, 128), flat, (512,), 64),
        "perceptron, large": task(partial(make_mlp, 1024), flat, (512,), 256),
        "residual network": task(make_residual, images, (128,), 32),
        "transformer": task(make_transformer, ids, (64, 128), 16),
        "LSTM": task(Recurrent, ids[:, :64].contiguous(), (64, 64), 32),
    }


def plans(name: str, *, compiled: bool) -> list[Plan]:
    """The plain one first."""
    formats = ("contiguous", "channels_last") if name == "residual network" else ("contiguous",)
    kept = Plan.default(device().name).pin(workers=0)
    found = [baseline().pin(feed="resident")]
    for precision in ("fp32", "bf16"):
        for memory_format in formats:
            for compiles in (False, True) if compiled else (False,):
                found.append(
                    kept.pin(precision=precision, memory_format=memory_format, compile=compiles)
                )
    return found


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A plan of a task: predicted and measured."""

    task: str
    plan: Plan
    predicted: TimePrediction
    measured: float
    startup: float

    @property
    def label(self) -> str:
        plan = self.plan
        words = [
            plan.precision,
            plan.memory_format.replace("contiguous", ""),
            "compiled" if plan.compile else "",
        ]
        return " ".join(
            [*filter(None, words), "" if plan.allocator == "keep" else "(plain)"]
        ).strip()


def measured_pairs(rates: Rates, *, compiled: bool, seconds: float) -> list[Pair]:
    pairs = []
    for name, task in tasks().items():
        for plan in plans(name, compiled=compiled):
            target = "cpu" if device().is_cpu else "accelerator"
            operations = predict_memory(task, plan.pin(compile=False), target=target).operations
            predicted = predict_time(operations, rates, plan)
            measured = measure_step_time(task, plan, seconds=seconds)
            found = Pair(
                task=name,
                plan=plan,
                predicted=predicted,
                measured=measured.step,
                startup=measured.startup,
            )
            pairs.append(found)
    return pairs


def calibrated(pairs: Sequence[Pair], *, own: bool) -> list[float]:
    """Seconds predicted of each pair, by what was measured of other tasks, and of its own task's
    plain step."""
    found = []
    for pair in pairs:
        calibration = Calibration()
        for other in pairs:
            is_first = other is next(each for each in pairs if each.task == pair.task)
            if other.task != pair.task or (own and is_first and other is not pair):
                calibration = calibration.update(other.plan, other.predicted, other.measured)
        found.append(calibration.apply(pair.plan, pair.predicted).step)
    return found


def summary(name: str, pairs: Sequence[Pair], predicted: Sequence[float]) -> tuple[str, float]:
    """A line, and the least rank correlation of a task."""
    from scipy.stats import spearmanr

    errors = [
        abs(seconds / pair.measured - 1) for pair, seconds in zip(pairs, predicted, strict=True)
    ]
    ranks = []
    for task in dict.fromkeys(pair.task for pair in pairs):
        own = [number for number, pair in enumerate(pairs) if pair.task == task]
        ranks.append(
            float(
                spearmanr([predicted[n] for n in own], [pairs[n].measured for n in own]).statistic
            )
        )
    worst = max(errors)
    line = (
        f"{name:34} error: median {np.median(errors):6.1%}, worst {worst:6.1%}; rank correlation "
        "of a task's plans: "
        f"median {np.median(ranks):.2f}, least {min(ranks):.2f}"
    )
    return line, float(np.median(ranks))


def compare(*, compiled: bool, seconds: float, file: Path | None) -> None:
    here = device()
    rates = Rates.of_measured(measure_limits(here), measure_kernels(here), name=here.name)
    pairs = measured_pairs(rates, compiled=compiled, seconds=seconds)
    others, own = calibrated(pairs, own=False), calibrated(pairs, own=True)
    for pair, by_others, by_own in zip(pairs, others, own, strict=True):
        startup = (
            f"   startup {pair.predicted.startup:5.1f} -> {pair.startup:5.1f} s"
            if pair.plan.compile
            else ""
        )
        print(
            f"{pair.task:18} {pair.label:28} limits {1e3 * pair.predicted.step:8.2f}, others "
            f"{1e3 * by_others:8.2f}, "
            f"own {1e3 * by_own:8.2f} -> measured {1e3 * pair.measured:8.2f} ms{startup}"
        )
    lines = [
        summary("limits and operations", pairs, [pair.predicted.step for pair in pairs]),
        summary("calibrated by other tasks", pairs, others),
        summary("calibrated by the plain step too", pairs, own),
    ]
    print("\n".join(line for line, _ in lines))
    print(f"{'met' if lines[-1][1] >= WANTED else 'MISSED'}: rank correlation at least {WANTED}")
    if file is not None:
        rows = [{**asdict(pair), "predicted": asdict(pair.predicted)} for pair in pairs]
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


# ---- operations by themselves


class Stopwatch(TorchDispatchMode):
    """Seconds of each operation of one step, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[Any, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        seconds = time.perf_counter() - start
        if is_computation(func):
            operation = describe_operation(func, args, kwargs or {}, result, "forward")
            if operation is not None:
                self.records.append((operation, seconds))
        return result


def time_operations() -> None:
    device = Device("cpu")
    limits, kernels = measure_limits(device), measure_kernels(device)
    print(limits, {name: f"{rate:.3g}" for name, rate in kernels.items()}, sep="\n")
    for precision in ("fp32", "bf16"):
        by_name: dict[tuple[str, str, str], list[tuple[float, int, int]]] = defaultdict(list)
        for task in tasks().values():
            for operation, seconds in _timed_step(task, device, precision):
                key = (operation.kind, operation.dtype, operation.name)
                by_name[key].append((seconds, operation.flops, operation.num_bytes))
        for (kind, dtype, name), records in sorted(
            by_name.items(), key=lambda item: -sum(r[0] for r in item[1])
        ):
            seconds, flops, num_bytes = (sum(column) for column in zip(*records, strict=True))
            if seconds > 2e-4:
                each, share = 1e6 * seconds / len(records), num_bytes / seconds / limits.memory_copy
                print(
                    f"{precision} {kind:13} {dtype:4} {name[:50]:50} {len(records):4} x "
                    f"{each:9.1f} us, "
                    f"{flops / seconds / 1e9:7.1f} GFLOP/s, {share:6.1%} of a copy's rate"
                )


def _timed_step(task: volano.Task, device: Device, precision: str) -> list[tuple[Any, float]]:
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    batch = tuple(column[: task.batch_size] for column in task.data.tensors)

    def step() -> None:
        with device.autocast(precision):
            loss = task.objective(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step()
    runs = []
    for _ in range(5):
        with Stopwatch() as watch:
            step()
        runs.append(watch.records)
    return [
        (records[0][0], statistics.median(seconds for _, seconds in records))
        for records in zip(*runs, strict=True)
    ]


def main() -> None:
    take_device()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--operations", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.operations:
        time_operations()
    else:
        compare(compiled=not options.no_compile, seconds=options.seconds, file=options.json)


if __name__ == "__main__":
    main()
