"""How good a configuration is found, and when: 81 configurations, eta 3, rungs at 1, 3, 9 and 27 epochs, five seeds.

    python benchmarks/study_quality.py [b1|b2] [--seeds 5] [--trials 81] [--epochs 27]
                                       [--systems volano,optuna,ray,ray-reuse]

b1 (digits), with two cores: about 15 minutes; Ray's fresh processes take most of it. b2 (Fashion-MNIST, the
convolutional net) takes about an hour and a half: an epoch of it is a second.

Volano's successive halving is synchronous, in packs; Optuna's and Ray's is asynchronous (ASHA), with the trial function
of the tutorials; see study_peers.py. All minimise the validation loss. The best is that of all evaluations that a study
has seen so far: Optuna and Ray evaluate after each epoch, Volano at rungs.

Printed: the best loss at equal configuration-epochs (epochs trained, summed over trials), medians over the seeds with
the spread (least to greatest); the same at the end with the seconds taken; and, seed by seed, how long Volano and a
peer took to reach the worse of the two final losses, which both have reached.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics

import torch
from study_peers import Trace, at_budget, measure

BUDGETS = (0.25, 0.5, 0.75, 1.0)  # of the configuration-epochs of successive halving


def halving_epochs(trials: int, epochs: int) -> float:
    """Configuration-epochs of synchronous halving that goes on from rung to rung: 243 for 81 trials and 27 epochs."""
    spent, before, rung = 0.0, 0, 1
    while trials and before < epochs:
        spent += trials * (min(rung, epochs) - before)
        before, rung, trials = min(rung, epochs), rung * 3, trials // 3
    return spent


def seconds_to(trace: Trace, loss: float) -> float:
    """When a loss was first reached."""
    return next((seconds for _, seconds, lowest in trace.incumbents() if lowest <= loss), math.nan)


def spread(values: list[float], form: str) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "none"
    missing = f", {len(values) - len(known)} without" if len(known) < len(values) else ""
    return f"{statistics.median(known):{form}} ({min(known):{form}} to {max(known):{form}}{missing})"


def print_budgets(traces: dict[str, list[Trace]], whole: float) -> None:
    print("best validation loss at equal configuration-epochs: median over the seeds (least to greatest)")
    limits = [round(whole * share) for share in BUDGETS]
    print(f"{'':10s} " + "".join(f"{limit:>29d}" for limit in limits))
    for system, runs in traces.items():
        cells = [spread([at_budget(run.incumbents(), limit, 0) for run in runs], ".4f") for limit in limits]
        print(f"{system:10s} " + "".join(f"{cell:>29s}" for cell in cells))


def print_ends(traces: dict[str, list[Trace]]) -> None:
    print("at the end")
    for system, runs in traces.items():
        print(
            f"{system:10s} loss {spread([run.best().loss for run in runs], '.4f')}; "
            f"accuracy there {spread([run.best().accuracy for run in runs], '.4f')}; "
            f"{spread([run.config_epochs for run in runs], '.0f')} configuration-epochs; "
            f"{spread([run.seconds for run in runs], '.1f')} s"
        )


def print_races(traces: dict[str, list[Trace]]) -> None:
    for system, runs in traces.items():
        if system == "volano" or "volano" not in traces:
            continue
        whole, reached = [], []
        for ours, theirs in zip(traces["volano"], runs, strict=True):
            goal = max(ours.best().loss, theirs.best().loss)
            whole.append(ours.seconds / theirs.seconds)
            reached.append(seconds_to(ours, goal) / seconds_to(theirs, goal))
        print(
            f"volano takes {spread(whole, '.3f')} of {system}'s seconds for the whole study, "
            f"{spread(reached, '.3f')} to the loss that both have reached"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="b1", choices=["b1", "b2"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=81)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--systems", default="volano,optuna,ray,ray-reuse")
    given = parser.parse_args()
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores; {given.name}, {given.trials} trials, {given.seeds} seeds"
    )
    traces: dict[str, list[Trace]] = {}
    for seed in range(given.seeds):
        for system in given.systems.split(","):
            trace = measure(system, given.name, trials=given.trials, epochs=given.epochs, seed=seed, prunes=True)
            traces.setdefault(system, []).append(trace)
            print(f"  seed {seed}: {system} {trace.seconds:.1f} s, best {trace.best().loss:.4f}", flush=True)
    print_budgets(traces, halving_epochs(given.trials, given.epochs))
    print_ends(traces)
    print_races(traces)


if __name__ == "__main__":
    main()
