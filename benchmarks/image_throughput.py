"""The image application's training beside a hand-written loop with the same knobs: network,
optimizer, augmentation.

    python benchmarks/image_throughput.py [fp32|bf16 ...]

One run of the engine and one raw loop in one process, in turn, as in overhead.py, on Fashion-MNIST
with the thin network under the plan that the application chooses. Both have channels-last kernels
and keep freed host memory.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from on_device import device, take_device, words
from overhead import Alternate
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.data import Order
from volano.planner import PlanRequest
from volano.running.plan_run import choose_plan
from volano.task import Task, linear
from volano.training import MuonAdamW, RunFolder, run_task

FASHION = "/usr/share/datasets/fashion-mnist"
STEPS = 300


class RawLoop:
    """The hand-written loop, a block at a time: ``run(n)`` makes the next ``n`` steps."""

    def __init__(self, task: Task, precision: str) -> None:
        torch.manual_seed(task.seed)
        self.model = task.model().to(memory_format=torch.channels_last).train()
        self.model.to(device().torch_device)
        self.optimizer = MuonAdamW(task.parameter_groups(self.model))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.images, self.labels = device().move(task.data.tree)
        self.augment, self.smoothing = task.augment, task.objective.label_smoothing
        self.precision, self.schedule = precision, linear()
        self.order = Order(num_examples=len(task.data), batch_size=task.batch_size, seed=task.seed)
        self.generator = device().generator().manual_seed(0)
        self.step, self.num_steps = 0, task.num_steps

    def run(self, count: int) -> None:
        losses = []
        for step in range(self.step, self.step + count):
            rows = device().move(torch.from_numpy(self.order.key(step).indices.copy()))
            batch = self.images.index_select(0, rows), self.labels.index_select(0, rows)
            images, labels = self.augment(batch, self.generator)
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * self.schedule((step + 0.5) / self.num_steps)
            self.optimizer.zero_grad(set_to_none=True)
            with device().autocast(self.precision):
                loss = nn.functional.cross_entropy(
                    self.model(images), labels, label_smoothing=self.smoothing
                )
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        self.step += count
        torch.stack(losses).mean().item()


def compare(precision: str) -> None:
    application = ImageApplication.read(ImageOptions(path=FASHION, flip="yes"))
    # Nothing but steps: an evaluation is no training, and stands in neither block.
    task = dataclasses.replace(application.task(STEPS), valid=None)
    pins = {"optimizer": "as_given", "memory_format": "channels_last", "precision": precision}
    plan = choose_plan(task, PlanRequest(device=device().name, pins=pins), is_raced=False).plan
    watch = Alternate(RawLoop(task, precision))
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder.reserve(Path(root) / "run", "image")
        folder.make()
        run_task(task, plan, folder, observer=watch)
    print(
        f"{precision}, steps of {task.batch_size} images: {watch.throughput()}; wanted 0.97",
        flush=True,
    )


def main() -> None:
    take_device()
    print(words())
    for precision in sys.argv[1:] or ["fp32", "bf16"]:
        compare(precision)


if __name__ == "__main__":
    main()
