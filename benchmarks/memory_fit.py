"""Verdicts on budgets of memory against a limit that the kernel enforces on the process.

    python benchmarks/memory_fit.py                # about four minutes on two cores that nobody
    else uses python benchmarks/memory_fit.py --needs return system keep   # what each case needs at
    least; twenty minutes

For draws of (task, plan, budget): a child process is limited (RLIMIT_DATA) to the bytes that it has
before the session begins and the budget, and trains a few steps. Wanted: of those told FITS none
fails.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import time
from pathlib import Path

import torch

from memory_cases import cases
from volano import Plan, Task
from volano.device import Device
from volano.device.isolated import IsolatedError, run_isolated
from volano.planner.memory.predict import (
    Prediction,
    load_libraries,
    needed_bytes,
    predict_memory,
    verdict,
)
from volano.training import Session, settings_of

_NUM_STEPS, _TIMEOUT = 3, 120.0
_ENOUGH = 0.03  # share to which a need is found


def data_bytes() -> int:
    """Private writable memory of this process, which RLIMIT_DATA bounds (getrlimit(2), proc(5))."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def train_within(task: Task, plan: Plan, budget: int) -> bool:
    """Trains a few steps under a limit. What does not fit raises, or ends the process."""
    gc.collect()
    limit = data_bytes() + budget
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with settings_of(plan, Device(plan.device)):
        session = Session(task, plan, on_notice=lambda _: None)
        for step, batch in enumerate(session.feed.batches(session.order.keys(0, _NUM_STEPS))):
            session.step_once(batch, step)
    return True


def fits(task: Task, plan: Plan, budget: int) -> bool:
    """Whether it trains within the budget."""
    try:
        return run_isolated(train_within, task, plan, budget, timeout=_TIMEOUT)
    except IsolatedError:
        return False


def need(task: Task, plan: Plan, prediction: Prediction) -> int:
    """The least budget within which it trains, to a few per cent above."""
    low, high = prediction.memory.peak // 2, 2 * prediction.memory.peak + 64 * 2**20
    while high - low > _ENOUGH * low:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(task, plan, middle) else (middle, high)
    return high


def show_needs(allocators: list[str]) -> None:
    """Prints what allocators add to live bytes, from which the reserve was taken."""
    for name, task, plan in cases():
        for allocator in allocators:
            pinned = plan.pin(allocator=allocator)
            prediction = predict_memory(task, pinned)
            least = need(task, pinned, prediction)
            peak, upper = prediction.memory.peak, prediction.memory.upper
            print(
                f"{name:<28}{allocator:<8}peak {peak / 2**20:7.1f}  needs {least / 2**20:7.1f}"
                f"  upper {upper / 2**20:7.1f}"
                f"  beyond the peak {(least - peak) / 2**20:+6.1f} MiB ({least / peak - 1:+.0%})",
                flush=True,
            )


def judge_draws(num: int, seed: int) -> None:
    """Prints how often verdicts were right."""
    draws, start = random.Random(seed), time.perf_counter()
    known = []
    for name, task, plan in cases():
        pinned = plan.pin(allocator=draws.choice(("system", "keep", "return", "return")))
        known.append((f"{name}, {pinned.allocator}", task, pinned, predict_memory(task, pinned)))
    counts = {"FITS": [0, 0], "NO": [0, 0], "UNCERTAIN": [0, 0]}
    for _ in range(num):
        name, task, plan, prediction = draws.choice(known)
        # About the bound itself, where errors would show.
        budget = int(needed_bytes(prediction) * draws.uniform(0.5, 1.1))
        said, did = verdict(prediction, budget), fits(task, plan, budget)
        counts[said][did] += 1
        if (said, did) in (("FITS", False), ("NO", True)):
            print(f"WRONG: {name} under {budget / 2**20:.1f} MiB was told {said}", flush=True)
    print(f"FITS: {sum(counts['FITS'])}, of which {counts['FITS'][0]} did not (wanted: 0)")
    print(f"NO: {sum(counts['NO'])}, of which {counts['NO'][1]} did")
    print(f"UNCERTAIN: {sum(counts['UNCERTAIN'])}, of which {counts['UNCERTAIN'][1]} fitted")
    print(f"{num} draws in {time.perf_counter() - start:.0f} s")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--needs", nargs="*", choices=("system", "keep", "return"))
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_libraries()
    if options.needs is not None:
        show_needs(options.needs or ["return"])
    else:
        judge_draws(options.draws, options.seed)


if __name__ == "__main__":
    main()
