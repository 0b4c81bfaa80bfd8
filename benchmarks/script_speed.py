"""Scripts of other people by ``python`` and by ``volano run``, whole processes in turn.

    python benchmarks/script_speed.py [--minutes 11] [--rounds 5] [--only NAME ...]
        [--parts explain search start scripts] [--plans FOLDER] [--small]

Four parts, each for itself:

``explain``: seconds from the command to the first table (where a step's time goes) and to the end
of ``volano explain`` on the tutorial script, by the clock of whoever waits.

``search``: ``volano run`` of a script that will take long, by a short run of it before: seconds
until it prints its first line, beyond those of ``python``, against a twentieth of the length that
is foretold; then what the next run says, and how soon it begins.

``start``: what a plan that sets nothing costs, seconds of a processor at the start and per cent of
a step, from pairs of a short and a long run of the script that reads its loss at every step.

``scripts``: the six scripts of ``examples/scripts``, which know nothing of Volano. Their plans are
known: a file ``NAME.json`` of ``--plans`` (written by ``volano explain --out NAME.json``), or the
one that stands below. Both sides have the machine alone, in turn, A B B A; the ratio of each pair
is taken, then their median. Last, the losses that both have printed are compared. Rounds go over
all scripts, and no round begins that would end after ``--minutes``.
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
from dataclasses import dataclass, field
from pathlib import Path

from volano.script.lengths import expected_length
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script

SCRIPTS = Path(__file__).parents[1] / "examples" / "scripts"
# For two cores without units for bf16.
PLANS = {
    "tutorial_loop": ScriptPlan(memory_format="channels_last", allocator="keep"),
    "lightning_digits": ScriptPlan(allocator="keep"),
    "trainer_gpt2": ScriptPlan(allocator="keep"),
    "accelerate_loop": ScriptPlan(allocator="keep"),
    "jpeg_folder": ScriptPlan(num_workers=2, persistent_workers=True),
    "reads_loss": ScriptPlan(fused=True),
}
# Half a minute each by python: a script that trains for two seconds measures how long torch loads.
EPOCHS = {
    "tutorial_loop": 2, "lightning_digits": 4, "trainer_gpt2": 1, "accelerate_loop": 20,
    "jpeg_folder": 8, "reads_loss": 12,
}  # fmt: skip
_LOSS = re.compile(r"loss'?:? '?([\d.]+)")
_SHORT, _LONG = 1, 150  # epochs of 16 steps


@dataclass
class Pairs:
    """The runs of one script by both sides."""

    name: str
    plan: ScriptPlan
    python: list[float] = field(default_factory=list)
    volano: list[float] = field(default_factory=list)
    largest_difference: float = float("nan")

    def run_once(self, folder: Path, extra: list[str]) -> None:
        """Runs both sides, in an order that turns."""
        self.plan.save(folder / f"{self.name}.json")
        epochs = [] if "--small" in extra else ["--epochs", str(EPOCHS[self.name])]
        script = [str(SCRIPTS / f"{self.name}.py"), *epochs, *extra]
        planned = ["-m", "volano", "run", "--plan", str(folder / f"{self.name}.json"), *script]
        if self.name == "jpeg_folder" and not self.python:  # it makes its pictures first
            timed([*script[:1], *extra], folder)
        sides = [(self.python, script), (self.volano, planned)]
        losses = {}
        for seconds, words in sides if len(self.python) % 2 == 0 else reversed(sides):
            taken, text = timed(words, folder)
            seconds.append(taken)
            losses[words is script] = [float(found) for found in _LOSS.findall(text)]
        self.largest_difference = max(
            (abs(a - b) for a, b in zip(losses[True], losses[False], strict=True)),
            default=float("nan"),
        )

    def line(self) -> str:
        """What was measured."""
        ratios = [a / b for a, b in zip(self.python, self.volano, strict=True)]
        return (
            f"{self.name:18} python {statistics.median(self.python):6.2f} s  volano run "
            f"{statistics.median(self.volano):6.2f} s  {statistics.median(ratios):5.3f} times as "
            f"fast ({min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} pairs)  largest "
            f"difference of a loss {self.largest_difference:.1e}  {self.plan.in_words()}"
        )


def timed(words: list[str], folder: Path) -> tuple[float, str]:
    """Runs a script in a process of its own. Returns its seconds, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, env={**os.environ}
    )
    if done.returncode:
        raise SystemExit(f"{words}: {done.stderr}")
    return time.perf_counter() - start, done.stdout


def processor_seconds(words: list[str], folder: Path) -> float:
    """Runs a script in a process of its own. Returns the seconds of processors that it took, which
    others on the machine change less than the clock's."""
    before = os.times()
    timed(words, folder)
    after = os.times()
    taken = after.children_user - before.children_user
    return taken + after.children_system - before.children_system


def measure_scripts(arguments: argparse.Namespace, folder: Path, end: float) -> None:
    """Runs rounds over the scripts, and prints a line for each."""
    extra = ["--small"] if arguments.small else []
    found = []
    for name in arguments.only:
        known = arguments.plans is not None
        plan = ScriptPlan.load(arguments.plans / f"{name}.json") if known else PLANS[name]
        found.append(Pairs(name, plan))
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for pairs in found:
            pairs.run_once(folder, extra)
            print(pairs.line(), flush=True)
        if 2 * time.perf_counter() - start > end:
            break
    ratios = [a / b for pairs in found for a, b in zip(pairs.python, pairs.volano, strict=True)]
    print(f"scripts: median {statistics.median(ratios):.3f} times as fast", flush=True)


def measure_start(rounds: int, folder: Path) -> None:
    """Prints what a plan that sets nothing costs."""
    ScriptPlan().save(folder / "empty.json")
    planned = ["-m", "volano", "run", "--plan", str(folder / "empty.json")]
    taken: dict[tuple[int, bool], list[float]] = {}
    for index in range(rounds):
        for epochs in (_SHORT, _LONG):
            script = [str(SCRIPTS / "reads_loss.py"), "--small", "--epochs", str(epochs)]
            sides = [(False, script), (True, planned + script)]
            for side, words in sides if index % 2 == 0 else reversed(sides):
                taken.setdefault((epochs, side), []).append(processor_seconds(words, folder))
    starts = [b - a for a, b in zip(taken[_SHORT, False], taken[_SHORT, True], strict=True)]
    steps = [
        (taken[_LONG, True][i] - taken[_SHORT, True][i])
        / (taken[_LONG, False][i] - taken[_SHORT, False][i])
        for i in range(rounds)
    ]
    print(
        f"an empty plan: {statistics.median(starts):+.2f} s at the start ({min(starts):+.2f} to "
        f"{max(starts):+.2f}), {statistics.median(steps) - 1:+.1%} of a step ({min(steps) - 1:+.1%}"
        f" to {max(steps) - 1:+.1%}), {rounds} pairs",
        flush=True,
    )


def measure_search(folder: Path) -> None:
    """Prints what a search before a long run takes of it, and what it and the next run say."""
    script = [str(SCRIPTS / "reads_loss.py"), "--small", "--epochs"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache")}
    run = ["-m", "volano", "run", *script]
    subprocess.run(
        [sys.executable, *run, "60"], cwd=folder, env=environment, check=True, capture_output=True
    )
    os.environ["XDG_CACHE_HOME"] = environment["XDG_CACHE_HOME"]
    length = expected_length(Script(target=script[0], arguments=("--small", "--epochs", "40000")))
    assert length is not None
    plain, _ = until_first_line([*script, "40000"], folder)
    first, said = until_first_line([*run, "40000"], folder)
    again, said_again = until_first_line([*run, "40000"], folder)
    print(f"search: {said.strip()}\n    then: {said_again.strip()}")
    print(
        f"    {first - plain:.1f} s before the first line, {(first - plain) / length.seconds:.1%} "
        f"of {length.seconds:.0f} s; the next time {again - plain:.1f} s",
        flush=True,
    )


def until_first_line(words: list[str], folder: Path) -> tuple[float, str]:
    """Runs a script until its first line. Returns the seconds, and its standard error."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-u", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - start
        process.kill()
        _, errors = process.communicate()
    return seconds, errors


def measure_explain(folder: Path) -> None:
    """Prints when an explanation shows its first table, and when it ends."""
    words = ["-m", "volano", "explain", str(SCRIPTS / "tutorial_loop.py"), "--epochs", "3"]
    start, first, lines = time.perf_counter(), None, []
    with subprocess.Popen(
        [sys.executable, "-u", *words], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            first = time.perf_counter() - start if first is None else first
            lines.append(line.rstrip())
    end = time.perf_counter() - start
    print("\n".join(f"    {line}" for line in lines))
    print(f"explain: the first table after {first or end:.1f} s, the end after {end:.1f} s")


def main() -> None:
    """Measures the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(PLANS))
    parser.add_argument("--parts", nargs="*", default=["explain", "search", "start", "scripts"])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--plans", type=Path)
    arguments = parser.parse_args()
    end = time.perf_counter() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        if "explain" in arguments.parts:
            measure_explain(Path(folder))
        if "search" in arguments.parts:
            measure_search(Path(folder))
        if "start" in arguments.parts:
            measure_start(min(3, arguments.rounds), Path(folder))
        if "scripts" in arguments.parts:
            measure_scripts(arguments, Path(folder), end)


if __name__ == "__main__":
    main()
