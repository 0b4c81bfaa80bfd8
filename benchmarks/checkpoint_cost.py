"""What feeding and saving cost a training, as shares of its step time, on the image benchmark's
network.

    python benchmarks/checkpoint_cost.py

One session on Fashion-MNIST with the thin network, in blocks of steps, four ways in turn: on one
batch that lies there (no feed), fed, fed with a save that the loop waits for in each block, fed
with a save beside the loop. A block's time includes the wait until its save is written, so that
what the writer takes from the training is in it. A save's cost is its block's time beyond the fed
block before it; its share is that cost once in the 60 seconds that lie between saves.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from on_device import device, take_device
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.device import Device
from volano.planner import PlanRequest
from volano.running.plan_run import choose_plan
from volano.training import RunFolder, Safety, Session, settings_of
from volano.training.checkpoints.checkpoint import save_checkpoint
from volano.training.checkpoints.saver import Saver

FASHION = "/usr/share/datasets/fashion-mnist"
NUM_ROUNDS, STEPS_PER_BLOCK = 12, 25
SECONDS_BETWEEN_SAVES = 60.0


class Blocks:
    """The four ways, each a block of steps on the same session."""

    def __init__(self, session: Session, folder: RunFolder) -> None:
        self._session, self._folder = session, folder
        self._batches = session.feed.batches(session.order.keys(0, session.task.num_steps))
        self._kept = next(self._batches)
        self._saver = Saver(folder, Safety(save_every="1st"), session.state_dict, print)

    def run(self, way: str) -> float:
        """Seconds of a block."""
        batches: Iterator = itertools.repeat(self._kept) if way == "no feed" else self._batches
        session = self._session
        start = time.perf_counter()
        for number in range(STEPS_PER_BLOCK):
            session.step_once(next(batches), session.step)
            session.step += 1
            if number == 0 and way == "waited for":
                save_checkpoint(
                    self._folder.path / "checkpoints", session.step, session.state_dict()
                )
            if number == 0 and way == "beside":
                self._saver.save()
        self._saver.close()
        session.device.synchronize()
        return time.perf_counter() - start


def main(source: str) -> None:
    """Prints a table."""
    application = ImageApplication.read(ImageOptions(path=source, epochs=1.0, size="thin"))
    planning = PlanRequest(
        device=device().name,
        pins={"optimizer": "as_given", "memory_format": "channels_last"},
        is_raced=False,
    )
    plan = choose_plan(application.task(application.steps_in(1.0)), planning).plan
    ways = ("no feed", "fed", "waited for", "beside")
    steps = (NUM_ROUNDS + 1) * len(ways) * STEPS_PER_BLOCK + 1
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as root, settings_of(plan, Device(plan.device)):
        session = Session(application.task(steps), plan, on_notice=print)
        blocks = Blocks(session, RunFolder(Path(root)))
        with contextlib.closing(blocks._batches):
            for round_ in range(NUM_ROUNDS + 1):
                for way in ways:
                    taken = blocks.run(way)
                    if round_:  # the first warms up
                        seconds[way].append(taken)
        size = sum(path.stat().st_size for path in Path(root).rglob("state.pt")) / 2
    fed = seconds["fed"]
    step = statistics.median(fed) / STEPS_PER_BLOCK
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {plan.device}; a step "
        f"{step * 1e3:.1f} ms"
    )
    feed = [have / lack - 1 for have, lack in zip(fed, seconds["no feed"], strict=True)]
    print(f"feed: {_spread(feed)} of a step")
    for way in ("waited for", "beside"):
        cost = [with_save - without for with_save, without in zip(seconds[way], fed, strict=True)]
        share = [one / SECONDS_BETWEEN_SAVES for one in cost]
        print(
            f"save of {size / 2**20:.1f} MiB {way}: median {statistics.median(cost) * 1e3:.0f} "
            "ms, once in "
            f"{SECONDS_BETWEEN_SAVES:.0f} s {_spread(share)}"
        )


def _spread(shares: list[float]) -> str:
    low, middle, high = statistics.quantiles(shares, n=4)
    return f"{middle:+.2%} (quartiles {low:+.2%} to {high:+.2%})"


if __name__ == "__main__":
    take_device()
    main(sys.argv[1] if len(sys.argv) > 1 else FASHION)
