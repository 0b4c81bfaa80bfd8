"""Searches over small tasks: what the tests of the planner's core share."""

from __future__ import annotations

import functools
import random
import time
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import volano
from volano.device import Device
from volano.plan import Plan
from volano.planner import PlanRequest, PlanResult, find_plan
from volano.planner.search.time_budget import TimeBudget
from volano.planner.time.roofline import Rates

LONG = "50000st"


class SlowUnlessNarrow(nn.Module):
    """A net that sleeps where it is not under autocast, so that bf16 is the fastest, whatever the
    machine does."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = (
            nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
            if inner is None
            else inner
        )

    def forward(self, x):
        if not torch.is_autocast_enabled("cpu"):
            time.sleep(0.004)
        return self.inner(x)


class SlowIfNarrow(nn.Module):
    """The other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        if torch.is_autocast_enabled("cpu"):
            time.sleep(0.02)
        return self.inner(x)


def objective(model: nn.Module, batch: Any) -> torch.Tensor:
    """Mean cross-entropy."""
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)


def make_task(**fields: Any) -> volano.Task:
    """512 digits in batches of 32; long enough for a race, too short for the compiler, unless
    ``fields`` say so."""
    pixels, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(
        torch.tensor(pixels[:512], dtype=torch.float32) / 16, torch.tensor(labels[:512])
    )
    base: dict[str, Any] = {
        "model": SlowUnlessNarrow,
        "objective": objective,
        "data": data,
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        "batch_size": 32,
        "duration": LONG,
        "seed": 3,
    }
    return volano.Task(**{**base, **fields})


def search(task: volano.Task | None = None, **request: Any) -> PlanResult:
    """A search on the CPU that compiles nothing unless asked to."""
    forbidden = {"compile": (True,), **request.pop("forbidden", {})}
    return find_plan(
        make_task() if task is None else task,
        PlanRequest(device="cpu", forbid=forbidden, **request),
    )


def random_states() -> tuple[Any, ...]:
    """Of torch, numpy and Python."""
    numbers = np.random.get_state()
    return torch.get_rng_state().tolist(), numbers[1].tolist(), numbers[2], random.getstate()  # pyright: ignore


def by_plan(found: PlanResult, **knobs: Any) -> list[Any]:
    """Candidates of the explanation that have these knobs."""
    return [
        c
        for c in found.explanation.candidates
        if all(getattr(c.plan, k) == v for k, v in knobs.items())
    ]


# A device on which bf16 is predicted to be faster than fp32, as the nets above are measured to be.
RATES = Rates(
    name="simulated",
    flops={"fp32": 1e11, "bf16": 2e11},
    memory=2e10,
    launch=1e-6,
    ahead=False,
    origin="calibrated",
)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """An empty cache folder of the test's own, and a machine on which planning is fast: what is
    expected of a search follows neither from this processor's rates nor from what it needs to
    import, trace and predict."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("volano.planner.cost_model.rates_of", lambda *_: RATES)
    monkeypatch.setattr("volano.planner.time.compile_time.processor_slowness", lambda: 1.0)
    monkeypatch.setattr(Device, "has_bf16_units", True)
    monkeypatch.setattr("volano.planner.task_profile.bf16_speed", lambda _device: 2.0)
    spent: Any = TimeBudget.spent
    monkeypatch.setattr(TimeBudget, "spent", property(lambda self: spent.fget(self) / 20))
    return tmp_path / "cache" / "volano"


PLAIN = Plan.baseline("cpu")
