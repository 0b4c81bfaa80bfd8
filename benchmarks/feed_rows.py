"""Rows per second of random batches through the feeds, as the loop uses them: 256 rows of 784
bytes.

    python benchmarks/feed_rows.py [--rows 2000000]

Resident: the tensor in memory. Memory-mapped: the same bytes in a .npy file, its pages in the page
cache (this measures the software, not a disk: benchmarks/larger_than_memory.py does that). The rows
are crops of scikit-learn's photographs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import volano
from volano.data import Order, Quarantine, make_feed

sys.path.insert(0, str(Path(__file__).parent))
from feed_data import write_crops
from on_device import device, take_device

BATCH, STEPS, REPEATS = 256, 2000, 7


def rows_per_second(data: Any, feed: str, workers: int) -> float:
    here = device()
    order = Order(num_examples=len(data), batch_size=BATCH, seed=0)
    made = make_feed(
        data,
        None,
        here,
        feed=feed,
        workers=workers,
        prefetch=2,
        seed=0,
        quarantine=Quarantine(len(data)),
    )
    rates = []
    with here.settings(precision="fp32", allocator="keep"):
        order.key(0)  # the permutation is made once an epoch
        for repeat in range(REPEATS):
            start = time.perf_counter()
            for batch in made.batches(order.keys(repeat, repeat + STEPS)):
                assert len(batch) == BATCH
            here.synchronize()
            rates.append(STEPS * BATCH / (time.perf_counter() - start))
    print(f"  {min(rates) / 1e6:5.2f} to {max(rates) / 1e6:5.2f} million rows/s")
    return statistics.median(rates)


def main() -> None:
    take_device()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        write_crops(path, arguments.rows)
        mapped = volano.MemoryMapped(path)
        resident = volano.Arrays(mapped.tree.clone())
        mapped.tree.sum()  # into the page cache
        for name, data, feed, workers in (
            ("resident", resident, "resident", 0),
            ("memory-mapped, in process", mapped, "ring", 0),
            ("memory-mapped, one worker", mapped, "ring", 1),
        ):
            print(name)
            print(
                f"  {rows_per_second(data, feed, workers) / 1e6:5.2f} million rows/s (median of "
                f"{REPEATS})"
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
