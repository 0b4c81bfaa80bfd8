"""What feed and checkpoints cost of the training time on the image benchmark.

    python benchmarks/feed_cost.py [PATH] [--epochs 2] [--ring]

PATH is any source of images (Fashion-MNIST's folder of IDX files for the published figure), by
default the embedded digits. --ring feeds the same data through a ring in place of the resident
feed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import volano
from on_device import device, take_device


def main() -> None:
    take_device()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--ring", action="store_true")
    arguments = parser.parse_args()
    pins = {"feed": "ring", "workers": 0} if arguments.ring else {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = volano.train(
            "image",
            arguments.path,
            epochs=arguments.epochs,
            out=out,
            pins=pins,
            device=device().name,
            observer=volano.Observer(),
        )
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    waits = [record["data_wait_share"] for record in records if "data_wait_share" in record]
    seconds = result.seconds
    checkpoint = seconds.get("checkpoint", 0.0) / (
        seconds["train"] + seconds.get("checkpoint", 0.0)
    )
    feed = sum(waits) / len(waits)
    print(f"{len(waits)} logged lines, {seconds['train']:.1f} s of training")
    print(f"  waiting for the feed: {feed:.2%} of the step time (worst line {max(waits):.2%})")
    print(
        f"  checkpoints:          {checkpoint:.2%} of training and checkpoints, the last one "
        "included"
    )
    print(f"  together:             {feed + checkpoint:.2%}")


if __name__ == "__main__":
    main()
