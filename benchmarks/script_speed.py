"""Scripts of other people by ``python`` and by ``volano run``, whole processes in turn.

    python benchmarks/script_speed.py [--rounds 5] [--empty] [--only NAME ...] [--plans FOLDER]

The scripts are those of ``examples/scripts``, which know nothing of Volano. The plan is known: a
file ``NAME.json`` of ``--plans`` (written by ``volano explain``), or the one that stands below.
``--empty`` takes a plan that sets nothing: what the command itself costs. Both sides have the
machine alone, in turn, A B B A; the ratio of each pair is taken, then their median. Last, the
losses that both have printed are compared.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from volano.script.plan import ScriptPlan

SCRIPTS = Path(__file__).parents[1] / "examples" / "scripts"
# For two cores without units for bf16.
PLANS = {
    "tutorial_loop": ScriptPlan(num_workers=1, persistent_workers=True, fused=True),
    "lightning_digits": ScriptPlan(num_workers=1, persistent_workers=True, fused=True),
    "trainer_gpt2": ScriptPlan(threads=2),
    "accelerate_loop": ScriptPlan(memory_format="channels_last", fused=True, num_workers=1),
    "jpeg_folder": ScriptPlan(
        num_workers=2, persistent_workers=True, memory_format="channels_last"
    ),
    "reads_loss": ScriptPlan(fused=True, threads=1),
}
ARGUMENTS = {"jpeg_folder": ("--epochs", "3"), "lightning_digits": ("--epochs", "2")}
_LOSS = re.compile(r"loss'?:? '?([\d.]+)")


def measure(name: str, plan: ScriptPlan, rounds: int, folder: Path, extra: list[str]) -> None:
    """Runs both sides in turn, and prints a line."""
    plan.save(folder / "plan.json")
    script = [str(SCRIPTS / f"{name}.py"), *ARGUMENTS.get(name, ()), *extra]
    volano = ["-m", "volano", "run", "--plan", str(folder / "plan.json")]
    seconds: dict[str, list[float]] = {"python": [], "volano run": []}
    losses: dict[str, list[float]] = {}
    if name == "jpeg_folder":  # it makes its pictures when it runs first
        run([*script[:1], *extra], folder)
    for index in range(rounds):
        sides = [("python", script), ("volano run", volano + script)]
        for side, words in sides if index % 2 == 0 else reversed(sides):
            start = time.perf_counter()
            text = run(words, folder)
            seconds[side].append(time.perf_counter() - start)
            losses[side] = [float(found) for found in _LOSS.findall(text)]
    plain, planned = seconds["python"], seconds["volano run"]
    ratios = [a / b for a, b in zip(plain, planned, strict=True)]
    most = max(
        (abs(a - b) for a, b in zip(losses["python"], losses["volano run"], strict=True)),
        default=float("nan"),
    )
    print(
        f"{name:18} python {statistics.median(plain):6.2f} s  volano run "
        f"{statistics.median(planned):6.2f} s  {statistics.median(ratios):5.3f} times as fast "
        f"({min(ratios):.3f} to {max(ratios):.3f})  largest difference of a loss {most:.1e}  "
        f"{plan.in_words()}",
        flush=True,
    )


def run(words: list[str], folder: Path) -> str:
    """Runs a script in a process of its own. Returns what it printed."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, env={**os.environ}
    )
    if done.returncode:
        raise SystemExit(f"{words}: {done.stderr}")
    return done.stdout


def main() -> None:
    """Measures the scripts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(PLANS))
    parser.add_argument("--empty", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--plans", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            plan = ScriptPlan() if arguments.empty else PLANS[name]
            if arguments.plans is not None and not arguments.empty:
                plan = ScriptPlan.load(arguments.plans / f"{name}.json")
            extra = ["--small"] if arguments.small else []
            measure(name, plan, arguments.rounds, Path(folder), extra)


if __name__ == "__main__":
    main()
