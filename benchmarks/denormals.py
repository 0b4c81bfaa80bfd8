"""A pack of small nets whose units die, step by step: updated with numbers below the smallest
normal one as they are, and taken for 0.

    python benchmarks/denormals.py [--members 21] [--rounds 2]         about 20 seconds a round

Each side is a pack of B1 (pack_tasks.py) on one thread, as a worker of a study trains it, from the
first step to the last; the two take turns in shares of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time

import torch

from pack_tasks import make_task, sample
from volano.device.library_choices import denormals_flushed
from volano.packing import Member, Pack
from volano.packing.optim import per_member

SHARES = 6


def pack_of(size: int) -> Pack:
    """A pack of so many members."""
    params = sample("b1", size)
    members = [Member(number=n, task=make_task("b1", own)) for n, own in enumerate(params)]
    return Pack(members, engine="lowered", device="cpu")


def seconds_to(pack: Pack, step: int, *, is_flushed: bool) -> float:
    """Seconds of a step on the way to ``step``."""
    per_member.denormals_flushed = denormals_flushed if is_flushed else contextlib.nullcontext
    before = next(iter(pack.steps.values()))
    start = time.perf_counter()
    pack.advance(dict.fromkeys(pack.numbers, step))
    return (time.perf_counter() - start) / (step - before)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--members", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    num_steps = make_task("b1", sample("b1", 1)[0]).num_steps
    steps = [num_steps * share // SHARES for share in range(1, SHARES + 1)]
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(given.rounds):
        packs = {is_flushed: pack_of(given.members) for is_flushed in found}
        for is_flushed, pack in packs.items():
            seconds_to(pack, 8, is_flushed=is_flushed)
            found[is_flushed].append([])
        for step in steps:
            for is_flushed, pack in packs.items():
                found[is_flushed][-1].append(seconds_to(pack, step, is_flushed=is_flushed))
        losses = [pack.evaluate() for pack in packs.values()]
        apart = max(abs(losses[0][n]["loss"] - losses[1][n]["loss"]) for n in losses[0])
    print(f"{given.members} members, ms a step up to step " + ", ".join(map(str, steps)))
    for is_flushed, rounds in found.items():
        medians = [statistics.median(own) * 1e3 for own in zip(*rounds, strict=True)]
        name = "taken for 0" if is_flushed else "as they are"
        print(f"{name}: " + ", ".join(f"{ms:.2f}" for ms in medians))
    print(f"largest difference of a validation loss: {apart:.1e}")


if __name__ == "__main__":
    main()
