"""Tasks that several ranks train, and what a rank does with them.

Everything is in float64 where equality within rounding is asked for, so that rounding is far below
any mistake.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import volano


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels) / 16, torch.tensor(labels)


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Sequential(nn.Linear(32, 16), nn.Tanh()), nn.Linear(16, 10)
    ).double()


def make_normed_net() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 10),
    ).double()


def make_net_with_idle_part() -> nn.Module:
    net = make_net()
    net.add_module("idle", nn.Identity())
    net.idle.register_parameter("unused", nn.Parameter(torch.ones(3).double()))  # pyright: ignore
    return net


class Residual(nn.Module):
    """A block whose forward pass moves statistics, and whose width lets it repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(64, 64).double(), nn.BatchNorm1d(64).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.norm(self.linear(x)))


def make_deep_net() -> nn.Module:
    return nn.Sequential(Residual(), Residual(), nn.Linear(64, 10).double())


class Plain(nn.Module):
    """A block that ranks exchange nothing in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 32).double(), nn.Linear(32, 64).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.last(torch.tanh(self.first(x)))


def make_plain_deep_net() -> nn.Module:
    return nn.Sequential(Plain(), Plain(), Plain(), nn.Linear(64, 10).double())


class RootParameters(nn.Module):
    """Parameters that lie in no list of modules: a sharded model keeps them whole after a forward
    pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 32).double(), nn.Linear(32, 10).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu())


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)


def weighted(model: nn.Module, batch: Any) -> volano.Loss:
    """Examples count as much as their label says, so that ranks hold unequal weights."""
    inputs, labels = batch
    logits, weights = model(inputs), labels.double() + 1
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    return volano.Loss(
        total=(losses * weights).sum(),
        weight=weights.sum(),
        metrics={"accuracy": ((logits.argmax(1) == labels) * weights).sum() / weights.sum()},
    )


def under_autocast(model: nn.Module, batch: Any) -> torch.Tensor:
    """Is never called outside of the plan's precision, not even to look at the model; numbers of 64
    bits stay as they are in it."""
    assert torch.is_autocast_enabled("cpu")
    return cross_entropy(model, batch)


def shake(batch: Any, generator: torch.Generator) -> Any:
    inputs, labels = batch
    return inputs + 0.1 * torch.rand(inputs.shape, generator=generator, dtype=inputs.dtype), labels


class ShakePart:
    """The same of a rank's part, from draws for the whole batch."""

    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        return shake(batch, generator)

    def of_part(self, batch: Any, generator: torch.Generator, rank: int, world_size: int) -> Any:
        inputs, labels = batch
        assert len(labels) == 32 // world_size  # no rank fetches the examples of another
        draws = torch.rand(32, inputs.shape[1], generator=generator, dtype=inputs.dtype)
        return inputs + 0.1 * draws[rank::world_size], labels


def make_task(**fields: Any) -> volano.Task:
    pixels, labels = digits()
    base: dict[str, Any] = {
        "model": make_net,
        "objective": cross_entropy,
        "data": torch.utils.data.TensorDataset(pixels[:256], labels[:256]),
        # 93: batches of 32, 32 and 29.
        "valid": torch.utils.data.TensorDataset(pixels[512:605], labels[512:605]),
        "optimizer": functools.partial(torch.optim.AdamW, lr=3e-3),
        "schedule": volano.cosine(),
        "batch_size": 32,
        "duration": "12st",  # an epoch and a half
        "clip_norm": 0.5,
        "seed": 3,
    }
    return volano.Task(**{**base, **fields})


_EXACT = {"feed": "resident", "optimizer": "as_given"}
# name -> (fields of the task, knobs of the plan)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "weighted": ({"objective": weighted}, {}),
    "split": ({"objective": weighted}, {"micro_batch": 5}),
    "normed": ({"model": make_normed_net}, {}),
    "shaken": ({"augment": shake, "ema_decay": 0.9}, {}),
    "shaken-part": ({"augment": ShakePart()}, {"micro_batch": 5}),
    "idle": ({"model": make_net_with_idle_part}, {}),
    "averaged-root": ({"model": RootParameters, "ema_decay": 0.9}, {"sharding": "full"}),
    "kept": ({"last_batch": "keep", "batch_size": 30}, {"feed": "ring"}),
    "narrow": ({"objective": under_autocast}, {"precision": "bf16"}),
    "hybrid": ({"objective": weighted, "ema_decay": 0.9}, {"sharding": "hybrid"}),
    "recomputed": ({"model": make_deep_net}, {"recompute": "blocks"}),
    "recomputed-sharded": ({"model": make_deep_net}, {"sharding": "full", "recompute": "blocks"}),
    "sharded": ({"objective": weighted, "ema_decay": 0.9}, {"sharding": "full"}),
    "sharded-split": ({"objective": weighted}, {"sharding": "full", "micro_batch": 5}),
}
# Compiling takes long: these are trained by the slow tests.
COMPILED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "compiled": ({"objective": weighted}, {"compile": True, "micro_batch": 8}),
    "compiled-blocks": (
        {"model": make_plain_deep_net},
        {"compile": True, "compile_mode": "blocks"},
    ),
}


def case(name: str) -> tuple[volano.Task, volano.Plan]:
    fields, knobs = {**CASES, **COMPILED}[name]
    return make_task(**fields), volano.Plan.baseline().pin(**_EXACT | knobs)


class StopAfter(volano.Observer):
    """Asks this process to stop at the first logged line from ``step`` on."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_log(self, record: dict[str, Any]) -> None:
        if record["step"] >= self._step:
            os.kill(os.getpid(), 15)


def train(out: Path, names: list[str], stopped: list[str]) -> None:
    """Every named case to its end, into a folder of its name; some into ``stopped/`` until they are
    half done."""
    for name in names:
        task, plan = case(name)
        volano.train(task, plan=plan, out=out / name, observer=volano.Observer())
    for name in stopped:
        task, plan = case(name)
        volano.train(task, plan=plan, out=out / "stopped" / name, observer=StopAfter(4))


def resume(out: Path, names: list[str]) -> None:
    """Each from where it stands."""
    for name in names:
        task, _ = case(name)
        volano.resume(out / "stopped" / name, task=task, observer=volano.Observer())


def race(out: Path) -> None:
    """The first rank races plans for all of them, with compiled ones; then they train under the
    first of those that were timed."""
    from volano.device import Ranks
    from volano.planner import PlanRequest, find_plan

    ranks, told = Ranks.from_environment().join(), None
    task, _ = case("weighted")
    if ranks.is_first:
        pins = {"optimizer": "as_given", "feed": "resident", "threads": 1}
        asked = PlanRequest(
            device="cpu", world_size=ranks.world_size, is_free=True, is_raced=True, recalls=False,
            pins=pins,
        )  # fmt: skip
        found = find_plan(dataclasses.replace(task, duration="100000st"), asked).explanation
        assert found is not None
        timed = [c for c in found.candidates if c.plan.compile and c.measured is not None]
        told = json.dumps(timed[0].plan.to_json())
    plan = volano.Plan.from_json(json.loads(ranks.tell(told)))
    volano.train(task, plan=plan, out=out / "raced", observer=volano.Observer())
