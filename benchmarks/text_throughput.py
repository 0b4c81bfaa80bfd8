"""Training throughput of the text application beside a hand-written raw PyTorch loop with the same
knobs.

    python benchmarks/text_throughput.py [fp32|bf16]

One run of the application's task and one raw loop in one process, in turn, as
benchmarks/overhead.py does it: a block of the run's steps up to its next logged line, then as many
raw steps. The raw loop has the same model, optimizer, schedule, precision, batch and random
offsets, and reads its losses once a block. The text is Python's standard library. About three
minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

import volano
from on_device import device, take_device, words
from overhead import Alternate
from volano.apps.text.application import TextApplication
from volano.apps.text.options import TextOptions
from volano.task import progress_at
from volano.training import MuonAdamW, RunFolder, check_plan, run_task

STEPS = 600
WANTED = 0.97


class RawLoop:
    """The hand-written loop, a block at a time: ``run(n)`` makes the next ``n`` steps."""

    def __init__(
        self, task: volano.Task, tokens: torch.Tensor, context: int, precision: str
    ) -> None:
        torch.manual_seed(task.seed)
        self.model = task.model().to(device().torch_device)
        self.optimizer = MuonAdamW(task.parameter_groups(self.model))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.generator = torch.Generator().manual_seed(0)
        self.task, self.context, self.precision = task, context, precision
        self.tokens = device().move(tokens)
        self.step = 0

    def batch(self) -> torch.Tensor:
        starts = torch.randint(
            len(self.tokens) - self.context - 1, (self.task.batch_size, 1), generator=self.generator
        )
        return self.tokens[device().move(starts + torch.arange(self.context + 1))].long()

    def run(self, count: int) -> None:
        losses = []
        for _ in range(count):
            multiplier = self.task.schedule(progress_at(self.step, self.task.num_steps))
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * multiplier
            ids = self.batch()
            with device().autocast(self.precision):
                logits = self.model(ids[:, :-1])
                loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            self.step += 1
        torch.stack(losses).mean().item()


def main() -> None:
    take_device()
    precision = sys.argv[1] if len(sys.argv) > 1 else "bf16"
    plan = volano.Plan.default(device().name).pin(
        memory_format="contiguous", optimizer="as_given", workers=0, precision=precision
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as root:
        application = TextApplication.read(TextOptions(), Path(root)).with_shape(
            depth=3, batch_size=8
        )
        task = application.task(STEPS)
        # Evaluations and previews are no steps: one at the very end.
        task = volano.Task(**{**vars(task), "preview": None, "evaluate_every": f"{STEPS}st"})
        check_plan(task, plan)
        tokens = torch.from_numpy(application.train.astype("int16"))
        watch = Alternate(RawLoop(task, tokens, application.spec.context, precision))
        folder = RunFolder.reserve(Path(root) / "run", "text")
        folder.make()
        with device().settings(precision=precision, allocator=plan.allocator):  # for both
            run_task(task, plan, folder, observer=watch)
    print(
        f"{words()}; {precision}, depth 3, "
        "steps of "
        f"{application.tokens_per_step} tokens: {watch.throughput()}; wanted {WANTED}"
    )


if __name__ == "__main__":
    main()
