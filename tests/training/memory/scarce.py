"""What test_out_of_memory.py runs in a child process: a training that does not fit into what the
process may take."""

from __future__ import annotations

import functools
import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import volano
from volano import Plan
from volano.training import RunFolder, run_task

BATCH_SIZE, WIDTH, NUM_LAYERS = 1024, 2048, 8


def make_net() -> nn.Module:
    layers = [
        nn.Sequential(nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH), nn.GELU())
        for _ in range(NUM_LAYERS)
    ]
    return nn.Sequential(nn.Linear(16, WIDTH), *layers, nn.Linear(WIDTH, 1))


def mean_square(model: nn.Module, batch: Any) -> torch.Tensor:
    (inputs,) = batch
    return model(inputs).square().mean()


class LimitMemory(volano.Observer):
    """Lets the process take so much more than it has when the run starts."""

    def __init__(self, more: int | None) -> None:
        self.more = more

    def on_start(self, info: Any) -> None:
        if self.more is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack: proc(5)
            limit = pages * resource.getpagesize() + self.more
            resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def new_folder(path: Path) -> RunFolder:
    folder = RunFolder.reserve(path, "task")
    folder.make()
    return folder


def main(out: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    task = volano.Task(
        model=make_net,
        objective=mean_square,
        data=torch.utils.data.TensorDataset(torch.rand(4 * BATCH_SIZE, 16)),
        optimizer=functools.partial(torch.optim.SGD, lr=0.01),
        batch_size=BATCH_SIZE,
        duration="2st",
    )
    # Saved by each layer: its input, and that of its GELU.
    activations = 2 * NUM_LAYERS * BATCH_SIZE * WIDTH * 4
    relieved = run_task(
        task,
        Plan.baseline(),
        new_folder(out / "relieved"),
        observer=LimitMemory(activations * 2 // 3),
        may_split=True,
    )
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    plain = run_task(task, relieved.plan, new_folder(out / "plain"), observer=volano.Observer())
    pairs = zip(relieved.model.parameters(), plain.model.parameters(), strict=True)
    record = json.loads((out / "relieved" / "run.json").read_text())
    return {
        "batch_size": BATCH_SIZE,
        "micro_batch": relieved.plan.micro_batch,
        "reason": record["reliefs"][0]["reason"],
        "is_same": all(torch.equal(one, other) for one, other in pairs),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
