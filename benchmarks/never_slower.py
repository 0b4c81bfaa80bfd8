"""Runs with planning beside plain eager PyTorch, whole.

    python benchmarks/never_slower.py whole 60 [TASK ...]              about two minutes a task
    python benchmarks/never_slower.py blocks 300 [--rounding] [TASK ...]      about a minute a task

The peer is a hand-written loop: fp32, eager, the optimizer as the task gives it, batches gathered
from memory, losses read once in a hundred steps. Each side is a process of its own, because a
plan's settings (threads, allocator) are those of a process, and only one of them works at a time.
Caches (remembered plans, measured rates, compiled code) are empty at the start of each task.

``whole``: both run as many steps as the plain loop makes in so many seconds, in turn. The planned
side is ``volano.train`` from its call to its return: planning, compiling, training, saving, the
report.

``blocks``: planning for a run of that length is done for real; then both sides make blocks of steps
in turn, and the whole run follows from the planning, the start-up of either side (the model, the
optimizer, what torch imports for it, the first two steps) and the medians of the blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import volano
from on_device import baseline, device, take_device
from planning_tasks import NAMES, make_task
from volano.data import Fetcher, Order
from volano.device import Device
from volano.planner import PlanRequest, find_plan
from volano.task import as_loss, num_examples, progress_at
from volano.training import Session, settings_of
from volano.training.step import seed_of_augmentation

ROUNDS, BLOCK_SECONDS = 8, 1.5
STARTING = 2  # steps that count as start-up


class PlainLoop:
    """The hand-written loop."""

    def __init__(self, task: volano.Task) -> None:
        self.task = task
        torch.manual_seed(task.seed)
        self.model = task.model().to(device().torch_device)
        groups = (
            self.model.parameters()
            if task.parameter_groups is None
            else task.parameter_groups(self.model)
        )
        self.optimizer = task.optimizer(groups)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = None
        if task.ema_decay is not None:
            self.average = task.model().to(device().torch_device)
        self.order = Order(num_examples=len(task.data), batch_size=task.batch_size, seed=task.seed)
        self.fetch = Fetcher(task.data, task.collate, task.seed)
        self.generator = device().generator()
        self.losses: list[torch.Tensor] = []
        self.step = 0

    def run(self, count: int) -> None:
        """The next ``count`` steps."""
        task = self.task
        for _ in range(count):
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * task.schedule(
                    progress_at(self.step % task.num_steps, task.num_steps)
                )
            batch = device().move(self.fetch(self.order.key(self.step)).batch)
            if task.augment is not None:
                self.generator.manual_seed(seed_of_augmentation(task, self.step))
                batch = task.augment(batch, self.generator)
            self.optimizer.zero_grad(set_to_none=True)
            loss = as_loss(task.objective(self.model, batch), num_examples(batch))
            mean = loss.total / loss.weight
            mean.backward()
            if task.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), task.clip_norm)
            self.optimizer.step()
            if self.average is not None:
                with torch.no_grad():
                    decay = task.ema_decay or 0.0
                    torch._foreach_lerp_(
                        list(self.average.parameters()), list(self.model.parameters()), 1 - decay
                    )
            self.losses.append(mean.detach())
            self.step += 1
            if len(self.losses) == 100:
                torch.stack(self.losses).mean().item()
                self.losses = []


class PlannedLoop:
    """The engine under the plan that was found."""

    def __init__(self, task: volano.Task) -> None:
        start = time.perf_counter()
        found = find_plan(task, PlanRequest(device=device().name))
        self.planning = time.perf_counter() - start
        self.found, plan = found, found.plan
        self.settings = settings_of(plan, Device(plan.device))
        self.settings.__enter__()
        start = time.perf_counter()
        self.session = Session(task, plan, on_notice=lambda _: None)
        self.batches = self._endless()
        self.run(STARTING)
        self.startup = time.perf_counter() - start

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.session.feed.batches(
                self.session.order.keys(0, self.session.task.num_steps)
            )

    def run(self, count: int) -> None:
        """The next ``count`` steps."""
        num_steps = self.session.task.num_steps
        for _ in range(count):
            self.session.step_once(next(self.batches), self.session.step % num_steps)
            self.session.step += 1


# ---- children: one side each, told what to do over a pipe


def serve(kind: str, name: str, steps: int, tolerance: str) -> None:
    """Answers commands from standard input: a number of steps -> their seconds; an empty line ends
    it."""
    torch.set_num_threads(os.cpu_count() or 1)
    task = make_task(name, steps, tolerance)
    loop: PlainLoop | PlannedLoop
    if kind == "plain":
        start = time.perf_counter()
        loop = PlainLoop(task)
        loop.run(STARTING)
        answer({"startup": time.perf_counter() - start})
    else:
        loop = PlannedLoop(task)
        text = loop.found.explanation.candidates[0].changes_text(baseline())
        chosen = {
            "plan": text,
            "planning": loop.planning,
            "startup": loop.startup,
            "origin": loop.found.explanation.origin,
        }
        start = time.perf_counter()
        again = find_plan(task, PlanRequest(device=device().name))
        answer(
            {
                **chosen,
                "again": time.perf_counter() - start,
                "again_origin": again.explanation.origin,
            }
        )
    for line in sys.stdin:
        if not line.strip():
            return
        start = time.perf_counter()
        loop.run(int(line))
        device().synchronize()
        answer({"seconds": time.perf_counter() - start})


def whole(kind: str, name: str, steps: int, tolerance: str) -> None:
    """A whole run, and its seconds."""
    task = make_task(name, steps, tolerance)
    start = time.perf_counter()
    if kind == "plain":
        PlainLoop(task).run(steps)
        device().synchronize()
        answer({"seconds": time.perf_counter() - start, "plan": "plain eager"})
        return
    with tempfile.TemporaryDirectory() as folder:
        run = volano.train(
            task, device=device().name, out=Path(folder) / "run", observer=volano.Observer()
        )
        seconds = time.perf_counter() - start
        record = json.loads((run.path / "explanation.json").read_text())
    explanation = volano.Explanation.from_json(record)
    text = explanation.candidates[0].changes_text(baseline())
    answer(
        {
            "seconds": seconds,
            "plan": text,
            "planning": explanation.planning_seconds,
            "phases": run.seconds,
        }
    )


def answer(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


class Side:
    """A child, with caches of its own."""

    def __init__(
        self, mode: str, kind: str, name: str, steps: int, tolerance: str, cache: str
    ) -> None:
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": cache,
            "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        }
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, __file__, f"_{mode}", str(steps), kind, name, tolerance]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a side has died")
        return json.loads(line)

    def seconds(self, count: int) -> float:
        """Of so many steps."""
        assert self.process.stdin is not None
        print(count, file=self.process.stdin, flush=True)
        return self.read()["seconds"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# ---- the two measurements


def plain_step(name: str, cache: str) -> float:
    """Seconds of a plain step: median of some blocks."""
    side = Side("serve", "plain", name, 10**6, "precision", cache)
    once = side.seconds(2) / 2
    count = max(1, round(0.5 / once))
    step = statistics.median(side.seconds(count) / count for _ in range(5))
    side.close()
    return step


def compare_whole(name: str, seconds: float, tolerance: str) -> float:
    with tempfile.TemporaryDirectory() as cache:
        steps = max(1, round(seconds / plain_step(name, cache)))
        plain = Side("whole", "plain", name, steps, tolerance, cache)
        plain.close()
        planned = Side("whole", "planned", name, steps, tolerance, cache)
        planned.close()
    ratio = planned.first["seconds"] / plain.first["seconds"]
    phases = ", ".join(f"{name} {took:.1f}" for name, took in planned.first["phases"].items())
    print(
        f"{name:7s} {steps:,} steps: plain {plain.first['seconds']:.1f} s, planned "
        f"{planned.first['seconds']:.1f} s "
        f"(planning {planned.first['planning']:.1f} s): ratio {ratio:.3f}, {1 / ratio:.2f} times "
        "as fast; "
        f"{planned.first['plan']}; seconds by phase: {phases}",
        flush=True,
    )
    return ratio


def compare_blocks(name: str, seconds: float, tolerance: str) -> float:
    with tempfile.TemporaryDirectory() as cache:
        step = plain_step(name, cache)
        steps = max(1, round(seconds / step))
        planned = Side("serve", "planned", name, steps, tolerance, cache)
        plain = Side("serve", "plain", name, steps, tolerance, cache)
        rate = planned.seconds(max(1, round(0.3 / step))) / max(1, round(0.3 / step))
        counts = {
            plain: max(1, round(BLOCK_SECONDS / step)),
            planned: max(1, round(BLOCK_SECONDS / rate)),
        }
        blocks: dict[Side, list[float]] = {plain: [], planned: []}
        for _ in range(ROUNDS):
            for side, count in counts.items():
                blocks[side].append(side.seconds(count) / count)
        plain.close()
        planned.close()
    facts = planned.first
    slow, fast = statistics.median(blocks[plain]), statistics.median(blocks[planned])
    whole_plain = plain.first["startup"] + (steps - STARTING) * slow
    total = facts["planning"] + facts["startup"] + (steps - STARTING) * fast
    ratio = total / whole_plain
    print(
        f"{name:7s} {steps:,} steps: plain {slow * 1e3:.2f} ms, planned {fast * 1e3:.2f} ms a "
        "step; planning "
        f"{facts['planning']:.1f} s ({facts['planning'] / whole_plain:.1%}), start-up "
        f"{plain.first['startup']:.1f} and {facts['startup']:.1f} s; "
        f"{whole_plain:.0f} and {total:.0f} s, ratio {ratio:.3f}, {1 / ratio:.2f} times as fast; "
        f"{facts['plan']}; "
        f"planned again in {facts['again']:.2f} s ({facts['again_origin']})",
        flush=True,
    )
    return ratio


def main() -> None:
    take_device()
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["whole", "blocks", "_whole", "_serve"])
    parser.add_argument("length", type=float)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounding", action="store_true")
    given = parser.parse_args()
    if given.mode.startswith("_"):
        kind, name, tolerance = given.names
        {"_whole": whole, "_serve": serve}[given.mode](kind, name, int(given.length), tolerance)
        return
    tolerance = "rounding" if given.rounding else "precision"
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores; {given.mode} runs of "
        f"{given.length:g} s, {tolerance}"
    )
    compare = {"whole": compare_whole, "blocks": compare_blocks}[given.mode]
    ratios = [compare(name, given.length, tolerance) for name in given.names or NAMES]
    median = statistics.median(ratios)
    print(f"worst ratio {max(ratios):.3f}; median {median:.3f}, {1 / median:.2f} times as fast")


if __name__ == "__main__":
    main()
