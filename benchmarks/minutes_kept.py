"""Whether ``--minutes`` is kept: wall time, steps and phases of the three applications, with the
machine idle and beside a second process.

    python benchmarks/minutes_kept.py --minutes 0.5 1 3 --apps image text video --beside 0 1
    python benchmarks/minutes_kept.py --minutes default --apps image text video

Every command is a process of its own, timed from its start to its end. ``--beside 2`` starts two
processes that compute without end; they end with the command. Images are Debian's Fashion-MNIST
unless ``--path`` or the default length is asked for; text and clips are the embedded samples.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FASHION = "/usr/share/datasets/fashion-mnist"
LEAST, MOST, MOST_BESIDE, LEAST_STEPS = 0.8, 1.1, 1.25, 30


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end, which no other process has to end."""
    command = ["timeout", "900", sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def train(kind: str, path: str | None, minutes: str, folder: Path) -> tuple[float, dict[str, Any]]:
    words = [sys.executable, "-m", "volano", "train", kind, *([path] if path else [])]
    words += [] if minutes == "default" else ["--minutes", minutes]
    begun = time.perf_counter()
    child = subprocess.run(
        [*words, "--out", str(folder), "--json"], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if child.returncode:
        raise SystemExit(child.stderr)
    return seconds, json.loads(child.stdout.splitlines()[-1])


def report(
    kind: str, minutes: float | None, beside: int, seconds: float, run: dict[str, Any]
) -> bool:
    """Prints a row; returns whether the aim is met, or the user was warned that it could not be."""
    phases = ", ".join(f"{name} {value:.1f}" for name, value in run["seconds"].items())
    figures = {
        name: run["metrics"][name]
        for name in ("test_accuracy", "bits_per_byte", "psnr_first_frame")
        if name in run["metrics"]
    }
    num_steps = run.get("num_steps") or run["task"]["num_steps"]
    is_warned = any("too short a time" in notice for notice in run["notices"])
    row = f"{kind:6}"
    is_kept = True
    if minutes is not None:
        share = seconds / (60 * minutes)
        is_kept = share <= (MOST_BESIDE if beside else MOST) and (
            num_steps >= LEAST_STEPS or is_warned
        )
        row += f" {minutes:g} min, {beside} beside: {share:.2f} of the minutes"
        row += " (short)" if share < LEAST else ""
    row += f", {seconds:.1f} s, {num_steps} steps{' (warned)' if is_warned else ''}, {figures}"
    print(f"{row}\n       {phases}", flush=True)
    for notice in run["notices"]:
        if "steps" in notice or "threads=" in notice:
            print(f"       {notice}", flush=True)
    return is_kept


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", nargs="+", default=["0.5", "1", "3"])
    parser.add_argument("--apps", nargs="+", default=["image", "text", "video"])
    parser.add_argument("--beside", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--path", help="of the data; the embedded sample with 'sample'")
    given = parser.parse_args()
    kept = []
    for minutes in given.minutes:
        for beside in given.beside:
            for kind in given.apps:
                path = FASHION if kind == "image" and minutes != "default" else None
                path = None if given.path == "sample" else given.path or path
                with tempfile.TemporaryDirectory() as root, busy(beside):
                    seconds, run = train(kind, path, minutes, Path(root) / "run")
                limit = None if minutes == "default" else float(minutes)
                kept.append(report(kind, limit, beside, seconds, run))
    print(f"{sum(kept)} of {len(kept)} as wanted, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
