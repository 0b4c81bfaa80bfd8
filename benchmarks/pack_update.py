"""The update of all members of an uncompiled pack in one pass beside each member's own fused one.

    python benchmarks/pack_update.py [--optimizer AdamW] [--rounds 5]

About two minutes. Both packs work in turn, in blocks of ten steps, one thread; the best block of
each counts. Every member has an order of its own.
"""

from __future__ import annotations

import argparse
import functools
import time

import torch
from sklearn.datasets import load_digits
from torch import nn

import volano
from on_device import device, take_device
from volano.data import Arrays
from volano.packing import Member, Pack
from volano.packing.engines import stacked

# Members, width of the layers, and how many there are.
SHAPES = ((128, 16, 2), (32, 16, 2), (8, 16, 2), (32, 64, 3), (32, 128, 3), (8, 128, 3))
STEPS = 10


def objective(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def net(width: int, depth: int) -> nn.Module:
    """Layers of one width on the 64 pixels of a digit."""
    inner = [m for _ in range(depth - 2) for m in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), *inner, nn.Linear(width, 10))


def pack(most_elements: int, members: int, width: int, depth: int, optimizer: str) -> Pack:
    """A pack whose members of up to so many parameters are updated in one pass."""
    stacked._MOST_ELEMENTS = most_elements
    pixels, labels = load_digits(return_X_y=True)
    data = Arrays((torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)))
    kind = getattr(torch.optim, optimizer)
    tasks = [
        volano.Task(
            model=functools.partial(net, width, depth), objective=objective, data=data,
            optimizer=functools.partial(kind, lr=1e-3 * (1 + number / members)), batch_size=16,
            duration="20000st", seed=number,
        )
        for number in range(members)
    ]  # fmt: skip
    made = Pack(
        [Member(number=number, task=task) for number, task in enumerate(tasks)],
        engine="lowered", num_steps=10**6, device=device().name,
    )  # fmt: skip
    advance(made, 3)
    return made


def advance(made: Pack, count: int) -> float:
    """Makes steps of all members. Returns seconds a step."""
    start = time.perf_counter()
    made.advance({number: step + count for number, step in made.steps.items()})
    device().synchronize()
    return (time.perf_counter() - start) / count


def main() -> None:
    """Prints a row for each shape."""
    take_device()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--optimizer", default="AdamW")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| members | parameters | each its own | one pass | times |\n|---|---|---|---|---|")
    for members, width, depth in SHAPES:
        sides = [pack(most, members, width, depth, options.optimizer) for most in (0, 10**12)]
        seconds: list[list[float]] = [[], []]
        for _ in range(options.rounds):
            for side, found in zip(sides, seconds, strict=True):
                found.append(advance(side, STEPS))
        own, one = (min(found) for found in seconds)
        size = sum(parameter.numel() for parameter in net(width, depth).parameters())
        print(
            f"| {members} | {size:,} | {own * 1e3:.1f} ms | {one * 1e3:.1f} ms | {own / one:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
