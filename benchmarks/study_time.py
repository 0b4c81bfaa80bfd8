"""How long a whole study takes, everything counted: the interpreter, imports, compiling, sampling,
storage, processes.

    python benchmarks/study_time.py b1 [--trials 128] [--epochs 20] [--rounds 1] [--systems
    volano,optuna,...]

Every trial is trained to its end (no pruning), so that all systems do the same work: 128 trials of
20 epochs. The systems are those of study_peers.py, in turn, each with its own default sampler.
Nothing is extrapolated: on two cores a round takes about 4 minutes with Optuna, 3 with Optuna in
two processes, 15 with Ray Tune and its fresh processes, 3 where it uses them again. Give fewer
--trials to try it; start-up then weighs more.
"""

from __future__ import annotations

import argparse
import os
import statistics

import torch

from study_peers import SYSTEMS, Trace, measure


def describe(system: str, traces: list[Trace]) -> str:
    """A line for a system: seconds of each round, and how good its trials were."""
    finals = [event for trace in traces for event in trace.finals()]
    best = [trace.best().loss for trace in traces]
    seconds = [trace.seconds for trace in traces]
    accuracies, losses = [event.accuracy for event in finals], [event.loss for event in finals]
    spread = f" ({min(seconds):.1f} to {max(seconds):.1f})" if len(seconds) > 1 else ""
    return (
        f"{system:10s} {statistics.median(seconds):7.1f} s{spread}; "
        f"{traces[0].config_epochs:,.0f} configuration-epochs, {len(traces[0].lengths())} trials; "
        f"accuracy: median {statistics.median(accuracies):.4f}, best {max(accuracies):.4f}; "
        f"loss: median {statistics.median(losses):.4f}, best {statistics.median(best):.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["b1", "b2"])
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    given = parser.parse_args()
    epochs = given.epochs or {"b1": 20, "b2": 3}[given.name]
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores; {given.name}, {given.trials} trials "
        f"of {epochs} epochs"
    )
    traces: dict[str, list[Trace]] = {}
    for number in range(given.rounds):
        for system in given.systems.split(","):
            trace = measure(
                system, given.name, trials=given.trials, epochs=epochs, seed=number, prunes=False
            )
            traces.setdefault(system, []).append(trace)
            print(f"  round {number}: {system} {trace.seconds:.1f} s", flush=True)
    for system, runs in traces.items():
        print(describe(system, runs))
    for system in traces:
        if "volano" in traces and system != "volano":
            pairs = zip(traces["volano"], traces[system], strict=True)
            ratios = [theirs.seconds / ours.seconds for ours, theirs in pairs]
            low, high = min(ratios), max(ratios)
            print(
                f"volano is {statistics.median(ratios):.2f} times as fast as {system} ({low:.2f} "
                f"to {high:.2f})"
            )


if __name__ == "__main__":
    main()
