"""Test accuracy of `volano train image` against the wall time of the whole command.

    python benchmarks/image_accuracy.py digits fashion-3 fashion-15

Every command is a process of its own, timed from its start to its end: interpreter, imports,
reading, planning, training and testing included, installation aside.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from volano.device import Device

# A processor without units for bf16 trains in fp32, about half as fast.
UNITS = Device("cpu").has_bf16_units
NARROW = ["--precision", "bf16"] if UNITS else []
FASHION = "/usr/share/datasets/fashion-mnist"
# name -> (arguments, seeds, seconds allowed, accuracy wanted)
GOALS = {
    "digits": ([], (0, 1, 2, 3, 4), 30, 0.985),
    "fashion-3": ([FASHION, "--minutes", "3", *NARROW], (0, 1, 2), 180, 0.935 if UNITS else 0.90),
    "fashion-15": ([FASHION, "--minutes", "15", *NARROW], (0,), 900, 0.940),
}


def run(arguments: list[str], seed: int, folder: Path) -> tuple[float, dict]:
    command = [sys.executable, "-m", "volano", "train", "image", *arguments]
    command += ["--seed", str(seed), "--out", str(folder)]
    start = time.perf_counter()
    child = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if child.returncode:
        raise SystemExit(child.stderr)
    return seconds, json.loads(child.stdout.splitlines()[-1])


def main() -> None:
    for name in sys.argv[1:] or GOALS:
        arguments, seeds, allowed, wanted = GOALS[name]
        accuracies, walls = [], []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as root:
                seconds, result = run(arguments, seed, Path(root) / "run")
            accuracies.append(result["metrics"]["test_accuracy"])
            walls.append(seconds)
            print(
                f"{name} seed {seed}: {accuracies[-1]:.4f} in {seconds:.1f} s, "
                f"{result['task']['num_steps']} steps, "
                f"phases {result['seconds']}",
                flush=True,
            )
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        print(
            f"{name}: accuracy mean {statistics.mean(accuracies):.4f} (min {min(accuracies):.4f}, "
            f"std {spread:.4f}), "
            f"wall at most {max(walls):.1f} s; wanted {wanted} in {allowed} s"
        )


if __name__ == "__main__":
    main()
