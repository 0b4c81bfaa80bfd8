"""Training on sets four times larger than a memory limit that the kernel enforces, beside the same
set in memory.

    python benchmarks/larger_than_memory.py [tokens] [arrays] [photographs] [--limit-mib 640]
    [--seconds 20]

Each training is a process of its own. With a memory cgroup that may be made (root), the limit
covers everything, the page cache of what was read too, so that three quarters of each epoch come
from the disk. Otherwise RLIMIT_DATA bounds what the process allocates, the page cache stays as
large as the machine, and the output says so.

tokens, arrays: examples per second under the limit, from mapped files, against those of the same
data in memory without a limit. photographs: against the rate at which one core decodes the same
files with the same function and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import volano
from volano.data.sources import ImageFile, PixelFormat, decode, leave_in_files, listed

sys.path.insert(0, str(Path(__file__).parent))
from feed_data import SIDE, forget, write_crops, write_photographs, write_tokens

KINDS = ("tokens", "arrays", "photographs")
CONTEXT, SIZE, TIMES = 128, 160, 4


class TokenModel(nn.Module):
    """A small causal transformer over bytes."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.position = nn.Parameter(torch.zeros(CONTEXT, width))
        layer = functools.partial(
            nn.TransformerEncoderLayer, width, 4, 4 * width, 0.0, batch_first=True
        )
        self.layers = nn.ModuleList(layer(norm_first=True) for _ in range(2))
        self.head = nn.Linear(width, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens) + self.position
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=True)
        return self.head(x)


def make_net(channels: int) -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]

    widths = [channels, 16, 32, 64]
    blocks = [part for pair in itertools.pairwise(widths) for part in block(*pair)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))


def make_light_net() -> nn.Module:
    """Next to no arithmetic: what limits the training is the decoder."""
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * (SIZE // 8) ** 2, 2))


def token_loss(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    tokens = tokens.long()
    return nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def image_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    images, labels = batch
    side = SIDE if images.ndim == 2 else images.shape[-1]
    images = images.view(len(images), -1, side, side).float() / 255
    return nn.functional.cross_entropy(model(images), labels)


def write(kind: str, folder: Path, num_bytes: int) -> None:
    if kind == "tokens":
        write_tokens(folder / "tokens.npy", num_bytes // 2)
    elif kind == "arrays":
        write_crops(folder / "x.npy", num_bytes // SIDE**2, labels=folder / "y.npy")
    else:  # the decoded set is as large as the others
        write_photographs(folder / "photographs", num_bytes // (3 * SIZE * SIZE))


def open_data(kind: str, folder: Path) -> Any:
    if kind == "tokens":
        return volano.MemoryMapped(folder / "tokens.npy", window=CONTEXT + 1, stride=CONTEXT)
    if kind == "arrays":
        return volano.MemoryMapped((folder / "x.npy", folder / "y.npy"))
    files = [
        ImageFile(path=path, label=int("flower" in path.parts))
        for path in listed(folder / "photographs")
    ]
    images = leave_in_files(
        files, ("china", "flower"), PixelFormat(channels=3, size=SIZE), root=folder
    )
    return images.dataset()


def make_task(kind: str, data: Any, steps: int) -> volano.Task:
    model = {
        "tokens": TokenModel,
        "arrays": functools.partial(make_net, 1),
        "photographs": make_light_net,
    }[kind]
    return volano.Task(
        model=model,
        objective=token_loss if kind == "tokens" else image_loss,
        data=data,
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        batch_size={"tokens": 32, "arrays": 256, "photographs": 64}[kind],
        duration=f"{steps}st",
        name=kind,
    )


class Rates(volano.Observer):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.waits: list[float] = []
        self.notices: list[str] = []

    def on_log(self, record: dict[str, Any]) -> None:
        self.rates.append(record["examples_per_second"])
        self.waits.append(record["data_wait_share"])

    def on_notice(self, text: str) -> None:
        self.notices.append(text)


# One plan for all modes, but for the feed: they are compared by it.
PLAN = {"precision": "fp32", "compile": False, "memory_format": "contiguous", "optimizer": "fused"}


def train(kind: str, folder: Path, mode: str, seconds: float) -> dict[str, Any]:
    """One training, in this process; what it reached."""
    data = open_data(kind, folder)
    if mode == "resident":
        data = volano.Arrays(_in_memory(data.tree))
    pins = {} if mode == "resident" or kind == "photographs" else {"feed": "ring"}
    steps, out = 60, folder / f"run-{mode}"
    while True:
        watch, start = Rates(), time.perf_counter()
        volano.train(
            make_task(kind, data, steps),
            out=out,
            observer=watch,
            pins={**PLAN, **pins},
            device="cpu",
        )
        took = time.perf_counter() - start
        shutil.rmtree(out)
        if took > 0.5 * seconds:
            break
        steps = max(2 * steps, int(0.9 * steps * seconds / took))
    workers = [notice for notice in watch.notices if notice.startswith(("feed=", "workers="))]
    return {
        "examples_per_second": statistics.median(watch.rates[len(watch.rates) // 4 :]),
        "data_wait_share": statistics.median(watch.waits[len(watch.waits) // 4 :]),
        "steps": steps,
        "plan": workers,
        "resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _in_memory(tree: Any) -> Any:
    return tuple(tensor.clone() for tensor in tree) if isinstance(tree, tuple) else tree.clone()


def decode_rate(folder: Path, seconds: float) -> float:
    """Images per second of one core that decodes and does nothing else."""
    files, pixel_format = listed(folder / "photographs"), PixelFormat(channels=3, size=SIZE)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        decode(files[count % len(files)], pixel_format)
        count += 1
    return count / (time.perf_counter() - start)


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[Path | None]:
    """A cgroup below this process's own with a memory limit, version 1 or 2; None where none can be
    made."""
    group = None
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            parent, name = Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes"
        elif not controllers and (Path("/sys/fs/cgroup") / "cgroup.controllers").exists():
            parent, name = Path("/sys/fs/cgroup" + path), "memory.max"
        else:
            continue
        try:
            made = parent / f"volano-benchmark-{os.getpid()}"
            made.mkdir()
            group = made
            (made / name).write_text(str(limit))
            break
        except OSError:
            if group is not None:
                group.rmdir()
            group = None
    try:
        yield group
    finally:
        if group is not None:
            with contextlib.suppress(OSError):
                group.rmdir()


def run_limited(arguments: list[str], limit: int | None) -> dict[str, Any]:
    """Runs this script's ``--child`` under a limit."""
    with memory_cgroup(limit) if limit else contextlib.nullcontext() as group:

        def enter() -> None:
            if group is not None:
                (group / "cgroup.procs").write_text(str(os.getpid()))
            elif limit:
                resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

        command = [sys.executable, __file__, "--child", *arguments]
        child = subprocess.run(
            command, capture_output=True, text=True, preexec_fn=enter, check=False
        )
        if child.returncode:
            raise SystemExit(f"the training ended with {child.returncode}: {child.stderr[-2000:]}")
        result = json.loads(child.stdout.splitlines()[-1])
        if group is not None:
            peak = next(
                p
                for p in (group / "memory.max_usage_in_bytes", group / "memory.peak")
                if p.exists()
            )
            result["limit"] = (
                f"cgroup; peak with page cache {int(peak.read_text()) / 2**20:,.0f} MiB"
            )
        elif limit:
            result["limit"] = "RLIMIT_DATA: the page cache is not limited"
    return result


def compare(kind: str, limit: int, seconds: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="volano-benchmark-", dir=Path.cwd()))
    try:
        print(
            f"{kind}: {TIMES * limit / 2**20:,.0f} MiB, limit {limit / 2**20:,.0f} MiB", flush=True
        )
        write(kind, folder, TIMES * limit)
        forget(folder)
        if kind == "photographs":
            reference, name = decode_rate(folder, 0.3 * seconds), "one core decodes"
            forget(folder)
        limited = run_limited([kind, str(folder), "limited", str(seconds)], limit)
        if kind != "photographs":
            resident = run_limited([kind, str(folder), "resident", str(seconds)], None)
            reference, name = resident["examples_per_second"], "in memory, no limit"
            print(f"  {name}: {json.dumps(resident)}")
        print(f"  limited: {json.dumps(limited)}")
        rate = limited["examples_per_second"]
        print(
            f"  {rate:,.0f} examples/s; {name}: {reference:,.0f}; ratio {rate / reference:.3f}",
            flush=True,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    # What was written is removed in this case too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=[*KINDS])
    parser.add_argument("--limit-mib", type=int, default=640)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    for kind in arguments.kinds:
        compare(kind, arguments.limit_mib * 2**20, arguments.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, folder, mode, seconds = sys.argv[2:]
        print(json.dumps(train(kind, Path(folder), mode, float(seconds))))
    else:
        main()
