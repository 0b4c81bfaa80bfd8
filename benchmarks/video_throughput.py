"""The video application's training beside a hand-written loop with the same knobs: model,
optimizer, batches, average.

    python benchmarks/video_throughput.py [fp32|bf16 ...]

One run of the engine and one raw loop in one process, in turn, as in overhead.py: a block of engine
steps up to its next logged line, then the same number of raw steps. The raw loop draws as much
noise and averages its weights too.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import torch

from on_device import device, take_device, words
from overhead import Alternate
from volano.apps.video.application import VideoApplication
from volano.apps.video.options import VideoOptions
from volano.apps.video.recipe import parameter_groups
from volano.data import Order
from volano.planner import PlanRequest
from volano.running.plan_run import choose_plan
from volano.task import Task, trapezoid
from volano.training import MuonAdamW, RunFolder, run_task

STEPS = 450


class RawLoop:
    """The hand-written loop, a block at a time: ``run(n)`` makes the next ``n`` steps."""

    def __init__(self, task: Task, precision: str, matrix_lr: float, rest_lr: float) -> None:
        torch.manual_seed(task.seed)
        self.model = task.model().train().to(device().torch_device)
        self.average = task.model().to(device().torch_device)
        self.average.load_state_dict(self.model.state_dict())
        self.decay = task.ema_decay
        self.optimizer = MuonAdamW(
            parameter_groups(self.model, matrix_lr=matrix_lr, rest_lr=rest_lr)
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.frames, self.lengths, self.labels = device().move(task.data.tree)
        self.objective, self.schedule, self.precision = task.objective, trapezoid(), precision
        self.order = Order(num_examples=len(task.data), batch_size=task.batch_size, seed=task.seed)
        self.step, self.num_steps = 0, task.num_steps

    def run(self, count: int) -> None:
        losses = []
        for step in range(self.step, self.step + count):
            rows = device().move(torch.from_numpy(self.order.key(step).indices.copy()))
            batch = tuple(
                part.index_select(0, rows) for part in (self.frames, self.lengths, self.labels)
            )
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * self.schedule((step + 0.5) / self.num_steps)
            self.optimizer.zero_grad(set_to_none=True)
            with device().autocast(self.precision):
                result = self.objective(self.model, batch)
            loss = result.total / result.weight
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.average.parameters()), list(self.model.parameters()), 1 - self.decay
                )
            losses.append(loss.detach())
        self.step += count
        torch.stack(losses).mean().item()


def compare(precision: str) -> None:
    application = VideoApplication.read(VideoOptions())
    task = application.task(STEPS)
    # Nothing but steps: an evaluation is no training, and stands in neither block.
    task = dataclasses.replace(task, valid=None)
    recipe = application.recipe_of(STEPS)
    pins = {"optimizer": "as_given", "memory_format": "contiguous", "precision": precision}
    plan = choose_plan(task, PlanRequest(device=device().name, pins=pins), is_raced=False).plan
    watch = Alternate(RawLoop(task, precision, recipe.matrix_lr, recipe.rest_lr))
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder.reserve(Path(root) / "run", "video")
        folder.make()
        run_task(task, plan, folder, observer=watch)
    print(
        f"{precision}, steps of {task.batch_size} clips: {watch.throughput()}; wanted 0.97",
        flush=True,
    )


def main() -> None:
    take_device()
    print(words())
    for precision in sys.argv[1:] or ["fp32", "bf16"]:
        compare(precision)


if __name__ == "__main__":
    main()
