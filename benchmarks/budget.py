"""A training whose plain step needs four times its budget, under the budget.

    python benchmarks/budget.py        about two minutes

Two tasks: a transformer over bytes, and a residual convolutional net.
``volano.train(task, budget=...)`` runs in a process whose data
segment is limited (RLIMIT_DATA, setrlimit(2)) to what it holds before the training plus the budget;
the plain step runs in another without a limit. The plain step's need is measured there by the
growth of the same quantity. Then both make blocks of steps in turn, and the losses of a whole short
run are compared.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import volano
from volano.device import Device
from volano.plan import Plan
from volano.planner import PlanRequest, find_plan
from volano.planner.memory.predict import measure
from volano.training import Session, settings_of

DURATION, STEPS, ROUNDS, BLOCK_SECONDS = 5000, 40, 6, 1.5
WANTED = 1.6


class Block(nn.Module):
    """Attention and a feed-forward layer, each after a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (4, -1)).transpose(1, 2)
            for part in self.qkv(self.norms[0](x_BTC)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x_BTC = x_BTC + self.out(mixed)
        return x_BTC + self.down(F.gelu(self.up(self.norms[1](x_BTC))))


class Transformer(nn.Module):
    def __init__(self, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 128)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x = self.embedding(ids_BT)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def next_character(model: nn.Module, batch: Tensor) -> Tensor:
    ids = batch.long()
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def classification(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def transformer(tolerance: str = "rounding") -> volano.Task:
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:80])
    ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).clamp(max=127)
    rows = len(ids) // 129
    return volano.Task(
        name="transformer", model=Transformer, objective=next_character,
        data=volano.Arrays(ids[: rows * 129].view(rows, 129)), batch_size=128,
        duration=f"{DURATION}st", optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        tolerance=tolerance,
    )  # fmt: skip


class Residual(nn.Module):
    """Two convolutions with norms that look at one image each, and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


def make_convnet() -> nn.Module:
    blocks = [Residual(32) for _ in range(6)]
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def convnet(tolerance: str = "rounding") -> volano.Task:
    pixels, labels = load_digits(return_X_y=True)
    images = F.interpolate(
        torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, size=32
    )
    return volano.Task(
        name="convnet", model=make_convnet, objective=classification, batch_size=128,
        duration=f"{DURATION}st", data=torch.utils.data.TensorDataset(images, torch.tensor(labels)),
        optimizer=functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9), tolerance=tolerance,
    )  # fmt: skip


TASKS = {"transformer": transformer, "convnet": convnet}


def data_bytes() -> int:
    """Of this process's data segment (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def serve(kind: str, name: str, budget: int) -> None:
    """A side: reads a number of steps, answers with seconds and losses."""
    task = TASKS[name]()
    if kind == "plain":
        plan = Plan.baseline().pin(feed="resident")
        answer({"plan": "plain eager"})
    else:
        found = find_plan(task, PlanRequest(budget=budget, recalls=False))
        plan = found.plan
        explanation = found.explanation
        answer({
            "plan": explanation.candidates[0].changes_text(Plan.baseline()),
            "verdict": explanation.verdict, "planning": explanation.planning_seconds,
            "peak": None if explanation.memory is None else explanation.memory.peak,
        })  # fmt: skip
        limit = data_bytes() + budget
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with settings_of(plan, Device("cpu")):
        session = Session(task, plan, on_notice=lambda _: None)
        batches = session.feed.batches(session.order.keys(0, 10**6))
        for line in sys.stdin:
            if not line.strip():
                return
            losses, start = [], time.perf_counter()
            for _ in range(int(line)):
                losses.append(session.step_once(next(batches), session.step % task.num_steps).loss)
                session.step += 1
            answer(
                {"seconds": time.perf_counter() - start, "losses": [loss.item() for loss in losses]}
            )


def answer(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


class Side:
    def __init__(self, kind: str, name: str, budget: int) -> None:
        environment = {
            **os.environ,
            "MALLOC_ARENA_MAX": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, kind, name, str(budget)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.first = self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a side has died")
        return json.loads(line)

    def steps(self, count: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(count, file=self.process.stdin, flush=True)
        return self.read()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(name: str) -> float:
    needed = measure(TASKS[name](), Plan.baseline().pin(feed="resident")).peak
    budget = needed // 4
    plain, under = Side("plain", name, budget), Side("under", name, budget)
    losses = [side.steps(STEPS)["losses"] for side in (plain, under)]
    difference = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
    seconds: dict[Side, list[float]] = {plain: [], under: []}
    once = plain.steps(2)["seconds"] / 2
    count = max(1, round(BLOCK_SECONDS / once))
    for _ in range(ROUNDS):
        for side, times in seconds.items():
            times.append(side.steps(count)["seconds"] / count)
    plain.close()
    under.close()
    slow, fast = (statistics.median(times) for times in seconds.values())
    print(
        f"{name}: a plain step holds {needed / 2**20:.0f} MiB; budget {budget / 2**20:.0f} MiB, "
        "enforced; "
        f"{under.first['plan']} ({under.first['verdict']}, "
        f"{(under.first['peak'] or 0) / 2**20:.0f} MiB predicted); "
        f"{slow * 1e3:.0f} -> {fast * 1e3:.0f} ms a step, {fast / slow:.2f} times; losses of "
        f"{STEPS} steps differ "
        f"by at most {difference:.1e}",
        flush=True,
    )
    return fast / slow


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] in ("plain", "under"):
        serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        worst = max(compare(name) for name in sys.argv[1:] or TASKS)
    print(f"worst {worst:.2f}, wanted {WANTED}")


if __name__ == "__main__":
    main()
