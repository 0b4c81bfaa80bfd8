"""Everything that one accelerator can tell of Volano in about eight minutes.

    python benchmarks/gpu/gpu_check.py [--device NAME] [--small] [--out FOLDER] [STAGE ...]

Stages run in the order of their value, each in a process of its own with its own limit, so that one
that hangs or is killed costs its own seconds only. Results come as JSON lines in FOLDER, and at the
end as a table beside the figures that are aimed at. ``--small`` takes the same kinds of nets at a
size that a CPU trains in seconds: that shows whether the check runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_results import Results, read_results, summary
from gpu_stages import STAGES, Stage
from gpu_tasks import GpuTasks
from volano.device import Device

# Of all stages together; what is not reached is said.
BUDGET_SECONDS, LEAST_SECONDS = 470, 15


def run_stage(name: str, options: argparse.Namespace) -> None:
    device = Device(options.device)
    results = Results(options.out / "results.jsonl", name, device)
    stage = Stage(device=device, tasks=GpuTasks(small=options.small), results=results)
    with results.check("the stage", STAGES[name][1]):
        STAGES[name][0](stage)


def run_all(names: list[str], options: argparse.Namespace) -> int:
    results, started = options.out / "results.jsonl", time.perf_counter()
    results.touch()
    device = Device(options.device)
    with _watched(options.out):
        _run_each(names, options, results, device, started)
    print("\n".join(summary(read_results(results))))
    return 0


@contextlib.contextmanager
def _watched(out: Path) -> Iterator[None]:
    """Notes clocks, power and use of NVIDIA's devices each second, if there is their tool."""
    if (tool := shutil.which("nvidia-smi")) is None:
        yield
        return
    what = "timestamp,clocks.sm,clocks.mem,power.draw,utilization.gpu,memory.used"
    with (out / "smi.csv").open("w", encoding="utf-8") as file:
        watcher = subprocess.Popen([tool, f"--query-gpu={what}", "--format=csv", "-l", "1"],
                                   stdout=file, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            yield
        finally:
            watcher.terminate()
            watcher.wait()


def _run_each(
    names: list[str], options: argparse.Namespace, results: Path, device: Device, started: float
) -> None:
    for name in names:
        left = options.seconds - (time.perf_counter() - started)
        if left < LEAST_SECONDS:
            Results(results, name, device).emit("not reached")
            continue
        command = [sys.executable, __file__, "--stage", name, "--out", str(options.out)]
        command += [*(["--small"] if options.small else []), "--device", device.name]
        limit = min(STAGES[name][1] + 30, left)
        with (options.out / "log.txt").open("a", encoding="utf-8") as log:
            try:
                code = subprocess.run(
                    command, stdout=log, stderr=log, timeout=limit, check=False,
                    env={**os.environ, "XDG_CACHE_HOME": str(options.out / "cache")},
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = -1
        Results(results, name, device).emit("stage ended", code=code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--device", help="as torch writes it; default: the accelerator, else cpu")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=BUDGET_SECONDS)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = Path(tempfile.mkdtemp()) if options.out is None else options.out
    options.out.mkdir(parents=True, exist_ok=True)
    if options.stage is not None:
        run_stage(options.stage, options)
        return 0
    unknown = [name for name in options.stages if name not in STAGES]
    if unknown:
        parser.error(f"a stage must be one of {', '.join(STAGES)}; got {unknown[0]}")
    return run_all(options.stages or list(STAGES), options)


if __name__ == "__main__":
    sys.exit(main())
