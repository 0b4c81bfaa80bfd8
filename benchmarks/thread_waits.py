"""Steps with threads that wait long and short for each other, on an idle and on a busy machine.

    python benchmarks/thread_waits.py [--rounds 8] [--beside 1] [--spins default 10000 30000]

Each setting of ``GOMP_SPINCOUNT`` has a process of its own, in turn, since GNU's OpenMP reads it
when it is loaded; ``default`` sets nothing. Printed are the median over rounds of the median and
the mean step, and the worst round's mean, of three small networks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from minutes_kept import busy

_SECONDS = 1.5  # of each network


def steps() -> dict[str, tuple[float, float]]:
    """Returns the median and the mean milliseconds of a step of each network."""
    import torch
    from torch import nn

    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, dropout=0.0)
    networks = {
        "convolutions": (
            nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(32 * 64, 128), nn.ReLU(), nn.Linear(128, 10),
            ),
            torch.randn(64, 1, 32, 32),
        ),
        "layers": (
            nn.Sequential(
                nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
            ),
            torch.randn(128, 64),
        ),
        "attention": (
            nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(8192, 10)),
            torch.randn(16, 64, 128),
        ),
    }  # fmt: skip
    found = {}
    for name, (model, inputs) in networks.items():
        optimizer = torch.optim.Adam(model.parameters())
        labels = torch.randint(0, 10, (len(inputs),))
        times: list[float] = []
        end = time.perf_counter() + _SECONDS
        while time.perf_counter() < end or not times:
            started = time.perf_counter()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            times.append(1e3 * (time.perf_counter() - started))
        times = times[min(3, len(times) - 1) :]
        found[name] = (statistics.median(times), statistics.fmean(times))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--spins", nargs="+", default=["default", "10000", "30000"])
    parser.add_argument("--child", action="store_true")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(steps()))
        return
    seen: dict[str, list[dict[str, tuple[float, float]]]] = {spins: [] for spins in given.spins}
    with busy(given.beside):
        for number in range(given.rounds):
            for spins in given.spins if number % 2 == 0 else reversed(given.spins):
                environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
                if spins != "default":
                    environment["GOMP_SPINCOUNT"] = spins
                command = [sys.executable, __file__, "--child"]
                seen[spins].append(json.loads(subprocess.check_output(command, env=environment)))
    for spins, rounds in seen.items():
        for name in rounds[0]:
            means = [one[name][1] for one in rounds]
            middles = statistics.median(one[name][0] for one in rounds), statistics.median(means)
            print(
                f"{spins:>8}  {name:<13} median {middles[0]:7.2f} ms, mean {middles[1]:7.2f} ms, "
                f"worst round {max(means):7.1f} ms"
            )


if __name__ == "__main__":
    main()
