"""How well `volano train video` foretells the embedded sample in 3 minutes, and how long 8 clips
take to generate.

    python benchmarks/video_prediction.py [SEED ...] [-- ARGUMENTS OF volano train]

Every command is a process of its own, timed from its start to its end: interpreter, imports, making
the sample, planning, training, testing and writing included. Wanted (two cores): the first
predicted frame at least 2.0 dB above the better trivial one in 180 s (0.5 dB on a processor without
units for bf16), the self-test of the distances passed, 8 clips of 16 frames at 32 x 32 in 10 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from volano.device import Device

MINUTES, ALLOWED = 3, 180
GAIN_WANTED = 2.0 if Device("cpu").has_bf16_units else 0.5
GENERATION_ALLOWED = 10.0


def volano(*arguments: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole command, and its JSON."""
    start = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-m", "volano", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if child.returncode:
        raise SystemExit(child.stderr)
    return seconds, json.loads(child.stdout.splitlines()[-1])


def measure(seed: str, more: list[str], run: str) -> None:
    """Trains, generates, prints."""
    seconds, result = volano(
        "train", "video", "--minutes", str(MINUTES), "--seed", seed, "--out", run, *more
    )
    metrics = result["metrics"]
    best = max(metrics["psnr_baselines"].values())
    print(
        f"seed {seed}: first predicted frame {metrics['psnr_first_frame']:.2f} dB, "
        + ", ".join(f"{name} {psnr:.2f}" for name, psnr in metrics["psnr_baselines"].items())
        + f": {metrics['psnr_first_frame'] - best:+.2f} dB (wanted {GAIN_WANTED:+.1f}) in "
        f"{seconds:.1f} s "
        f"(allowed {ALLOWED}), {result['task']['num_steps']} steps of "
        f"{result['task']['batch_size']}"
    )
    scores = json.loads((Path(run) / "eval-test.json").read_text(encoding="utf-8"))
    print(f"  frames {scores['context'] + 1} to 16: {scores['psnr']}")
    for name, baseline in scores["baselines"].items():
        print(f"  {name}: {baseline['psnr']}")
    print(f"  Frechet ratio {metrics['frechet_ratio']}, kernel ratio {metrics['kernel_ratio']}")
    print(f"  rejected: {scores['rejected']}; self-test: {scores['self_test']}")
    print(f"  nearest training clip, grey levels: {scores['nearest_training_distance']}")
    print(f"  seconds: {result['seconds']}")
    for name in ("first", "second"):
        seconds, _ = volano(
            "generate", run, "--clips", "8", "--steps", "20", "--out", f"{run}-{name}"
        )
        print(
            f"  8 clips of 16 frames, 20 steps, {name} time: {seconds:.1f} s (allowed "
            f"{GENERATION_ALLOWED:.0f})"
        )


def main() -> None:
    """See the top."""
    arguments = sys.argv[1:]
    more = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    seeds = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for seed in seeds or ["0"]:
        with tempfile.TemporaryDirectory() as root:
            measure(seed, more, str(Path(root) / "run"))


if __name__ == "__main__":
    main()
