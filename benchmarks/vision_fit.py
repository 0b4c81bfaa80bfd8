"""Predictions for an accelerator that is not here, against published training steps of image models
on an RTX 3090.

    python benchmarks/vision_fit.py

Ten rows of data/timm_on_rtx3090.csv (measured by the author of timm: fp16 autocast, SGD, eager, 224
x 224 pixels) in both memory formats. Residual networks (He et al. 2016, arXiv:1512.03385) and
vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929) of the same shapes are captured as
for an accelerator, and their steps predicted from the catalogue. For each memory format it also
prints the share of the peak for convolutions with which the residual networks' rows would be met,
which is how those in planner/time/roofline.py came about. Half a minute.
"""

from __future__ import annotations

import csv
import dataclasses
import statistics
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import volano
from time_prediction import Block
from volano.device import find_device
from volano.plan import Plan
from volano.plan.prediction import Operation
from volano.planner.memory.predict import predict_memory
from volano.planner.time.roofline import Rates, predict_time

DATA = Path(__file__).parent / "data" / "timm_on_rtx3090.csv"
WANTED = 0.2
RATES = Rates.of_known(find_device("RTX 3090"))


class Bottleneck(nn.Module):
    """Three convolutions (``wide`` 4), or two of three by three (``wide`` 1)."""

    def __init__(self, inner: int, width: int, stride: int, wide: int) -> None:
        super().__init__()
        outer = width * wide
        shapes = [(inner, width, 1, 1), (width, width, 3, stride), (width, outer, 1, 1)]
        if wide == 1:
            shapes = [(inner, width, 3, stride), (width, width, 3, 1)]
        layers: list[nn.Module] = []
        for number, shape in enumerate(shapes):
            layers += [
                *_convolution(*shape),
                *([nn.ReLU(inplace=True)] if number < len(shapes) - 1 else []),
            ]
        self.straight = nn.Sequential(*layers)
        needs = stride != 1 or inner != outer
        self.short = (
            nn.Sequential(*_convolution(inner, outer, 1, stride)) if needs else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.straight(x) + self.short(x), inplace=True)


def _convolution(inner: int, outer: int, size: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, size, stride, size // 2, bias=False), nn.BatchNorm2d(outer)]


def make_resnet(depths: tuple[int, ...], wide: int) -> nn.Module:
    layers: list[nn.Module] = [
        *_convolution(3, 64, 7, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inner = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for number in range(depth):
            layers.append(Bottleneck(inner, width, 2 if stage and not number else 1, wide))
            inner = width * wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 1000))


class Vision(nn.Module):
    def __init__(self, width: int, heads: int, depth: int = 12, size: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, size, size)
        self.places = nn.Parameter(torch.zeros(1, (224 // size) ** 2 + 1, width))
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*[Block(width, heads, causal=False) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], dim=1) + self.places
        return self.head(self.norm(self.blocks(tokens))[:, 0])


MODELS = {
    "resnet18": partial(make_resnet, (2, 2, 2, 2), 1),
    "resnet50": partial(make_resnet, (3, 4, 6, 3), 4),
    "resnet152": partial(make_resnet, (3, 8, 36, 3), 4),
    "vit_small_patch16_224": partial(Vision, 384, 6),
    "vit_base_patch16_224": partial(Vision, 768, 12),
}


def classify(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def captured(name: str, plan: Plan, batch_size: int) -> tuple[Operation, ...]:
    """Operations of a step; the pixels are never touched."""
    batch = torch.empty(batch_size, 3, 224, 224), torch.empty(batch_size, dtype=torch.long)
    task = volano.Task(
        model=MODELS[name],
        objective=classify,
        data=torch.utils.data.TensorDataset(*batch),
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        batch_size=batch_size,
        duration="10st",
    )
    return predict_memory(task, plan, target="accelerator", batch=batch).operations


def fitting_share(operations: tuple[Operation, ...], plan: Plan, seconds: float) -> float:
    """Of the peak for convolutions, at which the step takes so long: all else is as predicted."""
    ideal = dataclasses.replace(
        RATES, efficiency={**RATES.efficiency, f"convolution {plan.memory_format}": 1.0}
    )
    convolutions = [operation for operation in operations if operation.kind == "convolution"]
    arithmetic = predict_time(convolutions, ideal, plan).bounds["compute"]
    return arithmetic / (seconds - predict_time(operations, ideal, plan).step + arithmetic)


def main() -> None:
    shares: dict[str, list[float]] = {"contiguous": [], "channels_last": []}
    errors = []
    for row in csv.DictReader(DATA.open(encoding="utf-8")):
        plan = Plan(
            device="rtx", precision="fp16", memory_format=row["memory_format"], optimizer="foreach"
        )
        operations = captured(row["model"], plan, int(row["batch"]))
        seconds, found = float(row["step_seconds"]), predict_time(operations, RATES, plan)
        errors.append(found.step / seconds - 1)
        share = ""
        if row["model"].startswith("resnet"):
            shares[plan.memory_format].append(fitting_share(operations, plan, seconds))
            share = f"   met at a share of {shares[plan.memory_format][-1]:.2f} for convolutions"
        kinds = sorted(found.kinds.items(), key=lambda item: -item[1])[:3]
        parts = ", ".join(f"{kind} {part / found.step:.0%}" for kind, part in kinds)
        print(
            f"{row['model']:22} {plan.memory_format:13} x{row['batch']:>4} predicted "
            f"{found.step:6.3f} "
            f"-> measured {seconds:6.3f} s {errors[-1]:+6.1%}   {parts}{share}"
        )
    for memory_format, found_shares in shares.items():
        print(f"convolutions, {memory_format}: median share {statistics.median(found_shares):.2f}")
    median = statistics.median(map(abs, errors))
    print(
        f"{'met' if median <= WANTED else 'MISSED'}: median error {median:.1%}, wanted at most "
        f"{WANTED:.0%}"
    )


if __name__ == "__main__":
    main()
