"""A pack beside the tuned hand-written loop: configuration-steps per second once all runs.

    python benchmarks/pack_speed.py b1 [--members 8,32,128] [--engines auto,loop,lowered,compiled]
                                    [--rounds 8] [--finals 16]

About 2 minutes for each of b1, b2 and b3 besides what the engines need to start (compiling: a
minute or so each).

The loop (pack_peers.py) trains the configurations one after the other in one process, with one and
with two threads, plain and compiled (``torch.compile`` of forward pass and loss); and in two
processes side by side with one thread each. Each side is a process of its own and works in turn
with the others: a round of blocks, round after round. A pack's rounds together are one whole run of
its members, so that what is timed is the training in question; a loop's block are whole runs of
some members. Start-up and compiling are told apart, and do not count.

At the end members of each pack are trained alone by the loop, from the same weights over the same
batches with the same draws, and their figures stand beside the pack's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch

from on_device import baseline, device, take_device
from pack_peers import TunedLoop
from pack_tasks import make_task, sample

BLOCK_SECONDS = 1.5
LEAST_SHARED = 8  # members from which a study takes a second worker
LONG_STUDY = 10**6  # pack-steps: what compiling costs is told apart
WARM_STEPS = 3  # of a loop: the first call compiles


# ---- children: one side each, told what to do over a pipe


def serve_loop(name: str, kind: str) -> None:
    """Members, one after the other. Told ``run N``: N whole runs; ``final K``: member K, with the
    engine's draws."""
    members = sample(name, 128)
    numbers = iter(range(10**9))
    _answer({"startup": 0.0, "run_seconds": _whole_run(name, members[next(numbers)], kind)[1]})
    for command, count in _commands():
        if command == "final":
            loop = TunedLoop(make_task(name, members[count]), same_draws=True)
            loop.run(loop.task.num_steps)
            _answer(loop.evaluate())
            continue
        runs = [_whole_run(name, members[next(numbers) % len(members)], kind) for _ in range(count)]
        _answer(
            {
                "steps": sum(steps for steps, _ in runs),
                "seconds": sum(seconds for _, seconds in runs),
            }
        )


def _whole_run(name: str, params: dict[str, Any], kind: str) -> tuple[int, float]:
    """Steps and seconds of the timed part of a run."""
    if kind == "compiled":
        # each member is another model: it would run into the limit of recompilations
        torch._dynamo.reset()
    loop = TunedLoop(make_task(name, params), is_compiled=kind == "compiled")
    loop.run(WARM_STEPS)
    count = loop.task.num_steps - WARM_STEPS
    device().synchronize()
    start = time.perf_counter()
    loop.run(count)
    device().synchronize()
    return count, time.perf_counter() - start


def serve_pack(name: str, engine: str, size: int) -> None:
    """Trains members. Told ``run N``: the next N steps; ``finals 0``: what the members have come
    to.

    ``auto`` trains them as a long study does: in packs of as many members as is best here, under
    the engine that is found to be the fastest. An engine by name trains them in one pack.
    """
    from volano.packing import Member, Pack, pack_size

    members = [
        Member(number=n, task=make_task(name, params))
        for n, params in enumerate(sample(name, size))
    ]
    before, notices = _peak_bytes(), []
    start = time.perf_counter()
    most = size
    if engine == "auto":
        task = members[0].task
        most = pack_size(task, task.model(), baseline(), device()).members
    num = -(-size // most)
    packs: list[Pack] = []
    for part in range(num):
        own = members[part * size // num : (part + 1) * size // num]
        packs.append(
            Pack(
                own, engine=None if engine == "auto" else engine, device=device().name,
                family=packs[0].family if packs else None, num_steps=LONG_STUDY,
                on_notice=notices.append,
            )
        )  # fmt: skip
    step = 1
    _advance(packs, step)
    label = f"{packs[0].engine} in {num} packs" if num > 1 else packs[0].engine
    _answer({"startup": time.perf_counter() - start, "engine": label, "notices": notices})
    for command, count in _commands():
        if command == "finals":
            finals = {str(n): figures for pack in packs for n, figures in pack.evaluate().items()}
            _answer({"finals": finals, "peak": _peak_bytes(), "before": before, "engine": label})
            continue
        step += count
        start = time.perf_counter()
        _advance(packs, step)
        _answer({"steps": count * size, "seconds": time.perf_counter() - start})


def _advance(packs: list[Any], step: int) -> None:
    for pack in packs:
        pack.advance(dict.fromkeys(pack.numbers, step))
    device().synchronize()


def _commands() -> Iterator[tuple[str, int]]:
    for line in sys.stdin:
        command, count = line.split()
        yield command, int(count)


def _answer(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Side:
    """A child with so many threads; ``failure`` says why it has ended."""

    def __init__(self, label: str, arguments: list[str], threads: int) -> None:
        self.label, self.failure = label, ""
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it is closed in close()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip
        self.first = self.read()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            self.failure = (self.errors.read().strip().splitlines() or ["it has died"])[-1]
            return {}
        return json.loads(line)

    def ask(self, command: str) -> dict[str, Any]:
        self.tell(command)
        return self.read()

    def close(self) -> None:
        self.process.communicate()  # closes its input, which ends it
        self.errors.close()


# ---- the measurement


class Contest:
    """The sides of one task; ``rates[label]``: configuration-steps per second in each round."""

    def __init__(self, name: str, rounds: int) -> None:
        self.name, self.rounds = name, rounds
        self.num_steps = make_task(name, sample(name, 1)[0]).num_steps
        self.loops = {
            f"{kind}, {threads} thread{'s' * (threads > 1)}": Side(
                kind, ["_loop", name, kind], threads
            )
            for kind in ("plain", "compiled")
            for threads in (1, 2)
        }
        fastest = min(
            ("plain", "compiled"), key=lambda kind: self._run_seconds(f"{kind}, 1 thread")
        )
        self.pair = [Side(fastest, ["_loop", name, fastest], 1) for _ in range(2)]
        self.packs: dict[str, Side] = {}
        self.teams: dict[str, list[Side]] = {}
        self.rates: dict[str, list[float]] = {}

    def _run_seconds(self, label: str) -> float:
        return self.loops[label].first.get("run_seconds", math.inf)

    def add_pack(self, engine: str, size: int) -> None:
        """Starts one, and says how long that took or why it cannot be."""
        side = Side(engine, ["_pack", self.name, engine, str(size)], 2)
        label = f"K={size}, {engine}"
        if side.failure:
            print(f"  {label}: {side.failure}", flush=True)
            side.close()
            return
        told = "".join(f"; {notice}" for notice in side.first["notices"])
        print(
            f"  {label}: engine {side.first['engine']}, started in {side.first['startup']:.1f} "
            f"s{told}",
            flush=True,
        )
        self.packs[label] = side

    def add_workers(self, size: int) -> None:
        """Two processes of one thread that train half of the members each: what a study does here
        by itself."""
        sides = [Side("auto", ["_pack", self.name, "auto", str(size // 2)], 1) for _ in range(2)]
        label = f"K={size}, two workers"
        for side in sides:
            print(f"  {label}: {side.failure or side.first['engine']}", flush=True)
        if not any(side.failure for side in sides):
            self.teams[label] = sides

    def run(self) -> None:
        """All rounds."""
        for number in range(self.rounds):
            for label, side in self.loops.items():
                runs = max(1, round(BLOCK_SECONDS / self._run_seconds(label)))
                self._note(label, [side.ask(f"run {runs}")])
            runs = max(1, round(BLOCK_SECONDS / self.pair[0].first["run_seconds"]))
            for side in self.pair:
                side.tell(f"run {runs}")
            self._note(self.pair_label, [side.read() for side in self.pair])
            # One step was made at the start; the rounds together make the rest.
            stops = [1 + (self.num_steps - 1) * n // self.rounds for n in (number, number + 1)]
            for label, side in self.packs.items():
                self._note(label, [side.ask(f"run {stops[1] - stops[0]}")])
            for label, sides in self.teams.items():
                for side in sides:
                    side.tell(f"run {stops[1] - stops[0]}")
                self._note(label, [side.read() for side in sides])

    def _note(self, label: str, answers: list[dict[str, Any]]) -> None:
        rates = [answer["steps"] / answer["seconds"] if answer else math.nan for answer in answers]
        self.rates.setdefault(label, []).append(sum(rates))

    @property
    def pair_label(self) -> str:
        return f"two processes, {self.pair[0].label}, 1 thread each"

    def print_rates(self) -> None:
        """Medians, and the packs' ratios, round by round, to the fastest loop and to the two
        processes."""
        best = max(self.loops, key=lambda label: statistics.median(self.rates[label]))
        for label in (*self.loops, self.pair_label):
            mark = "   <- the fastest in one process" if label == best else ""
            print(f"  {label:40s} {_spread(self.rates[label])}{mark}")
        for label in (*self.packs, *self.teams):
            against = [
                _spread(
                    [a / b for a, b in zip(self.rates[label], self.rates[peer], strict=True)], ".2f"
                )
                for peer in (best, self.pair_label)
            ]
            print(
                f"  {label:40s} {_spread(self.rates[label])}   x {against[0]} one process, x "
                f"{against[1]} two"
            )

    def print_finals(self, count: int) -> None:
        """What members have come to in a pack and alone, and the memory that a pack took."""
        alone: dict[int, dict[str, float]] = {}
        for label, side in self.packs.items() if count else ():
            answer = side.ask("finals 0")
            finals = {int(number): figures for number, figures in answer["finals"].items()}
            numbers = list(finals)[:: max(1, len(finals) // count)][:count]
            for number in numbers:
                if number not in alone:
                    # As many as the pack has.
                    alone[number] = self.loops["plain, 2 threads"].ask(f"final {number}")
            differences = [
                abs(finals[n]["loss"] - alone[n]["loss"]) / abs(alone[n]["loss"]) for n in numbers
            ]
            memory = (
                f"peak {answer['peak'] / 2**20:,.0f} MiB, {answer['before'] / 2**20:,.0f} "
                "before the pack"
            )
            columns = [
                f"{name} {_mean(finals[n][name] for n in numbers):.4f} in the pack, "
                f"{_mean(alone[n][name] for n in numbers):.4f} alone"
                for name in next(iter(alone.values()))
            ]
            print(
                f"  {label}: {memory}; {len(numbers)} members: {'; '.join(columns)}; "
                f"losses differ by {statistics.median(differences):.1e} (at most "
                f"{max(differences):.1e})"
            )

    def close(self) -> None:
        for side in (
            *self.loops.values(),
            *self.pair,
            *self.packs.values(),
            *(s for team in self.teams.values() for s in team),
        ):
            side.close()


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _spread(values: list[float], form: str = ",.0f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def compare(name: str, sizes: list[int], engines: list[str], rounds: int, finals: int) -> None:
    """One task."""
    print(f"{name}:", flush=True)
    contest = Contest(name, rounds)
    for size in sizes:
        for engine in engines:
            contest.add_pack(engine, size)
        if size >= LEAST_SHARED:
            contest.add_workers(size)
    contest.run()
    print("configuration-steps per second, median (min to max)")
    contest.print_rates()
    contest.print_finals(finals)
    contest.close()


def main() -> None:
    take_device()
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="TASK", help="b1, b2, b3")
    parser.add_argument("--members", default="8,32,128")
    parser.add_argument("--engines", default="auto,loop,lowered,compiled")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--finals", type=int, default=16)
    given = parser.parse_args()
    if given.names[:1] == ["_loop"]:
        serve_loop(*given.names[1:])
        return
    if given.names[:1] == ["_pack"]:
        serve_pack(given.names[1], given.names[2], int(given.names[3]))
        return
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {given.rounds} rounds", flush=True)
    sizes = [int(size) for size in given.members.split(",")]
    for name in given.names or ["b1", "b2", "b3"]:
        compare(name, sizes, given.engines.split(","), given.rounds, given.finals)


if __name__ == "__main__":
    main()
