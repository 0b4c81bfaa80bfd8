"""How good a configuration is found, and when: 81 configurations, eta 3, rungs at 1, 3, 9 and 27
epochs, five seeds.

    python benchmarks/study_quality.py [b1|b2] [--seeds 5] [--trials 81] [--epochs 27]
                                       [--systems volano,optuna,ray,ray-reuse]

b1 (digits), with two cores: about 15 minutes; Ray's fresh processes take most of it. b2
(Fashion-MNIST, the convolutional net) takes about an hour and a half: an epoch of it is a second.

Volano's successive halving is synchronous, in packs; Optuna's and Ray's is asynchronous (ASHA),
with the trial function of the tutorials; see study_peers.py. All minimise the validation loss.

Printed: the best loss at equal configuration-epochs (epochs trained, summed over trials), medians
over the seeds with the spread (least to greatest), twice. First of trials that have been trained to
their end, which is what a study names as its best trial and what its objective returns. Then of all
evaluations that were seen so far: Optuna and Ray evaluate after each epoch and Volano at rungs, so
that theirs is the lowest of up to 27 values of a trial. Then the same at the end with the seconds
taken; and, seed by seed, how long Volano and a peer took to reach the worse of the two final
losses, which both have reached.
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
    """Configuration-epochs of synchronous halving that goes on from rung to rung: 243 for 81 trials
    and 27 epochs."""
    spent, before, rung = 0.0, 0, 1
    while trials and before < epochs:
        spent += trials * (min(rung, epochs) - before)
        before, rung, trials = min(rung, epochs), rung * 3, trials // 3
    return spent


def seconds_to(trace: Trace, loss: float, least_epochs: float) -> float:
    """When a loss was first reached."""
    return next(
        (seconds for _, seconds, lowest in trace.incumbents(least_epochs) if lowest <= loss),
        math.nan,
    )


def spread(values: list[float], form: str) -> str:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "none"
    missing = f", {len(values) - len(known)} without" if len(known) < len(values) else ""
    return (
        f"{statistics.median(known):{form}} ({min(known):{form}} to {max(known):{form}}{missing})"
    )


def print_budgets(traces: dict[str, list[Trace]], whole: float, least_epochs: float) -> None:
    of = "trials trained to their end" if least_epochs else "all evaluations"
    print(
        f"best validation loss of {of} at equal configuration-epochs: median over the seeds "
        "(least to greatest)"
    )
    limits = [round(whole * share) for share in BUDGETS]
    print(f"{'':10s} " + "".join(f"{limit:>29d}" for limit in limits))
    for system, runs in traces.items():
        cells = [
            spread([at_budget(run.incumbents(least_epochs), limit, 0) for run in runs], ".4f")
            for limit in limits
        ]
        print(f"{system:10s} " + "".join(f"{cell:>29s}" for cell in cells))


def print_ends(traces: dict[str, list[Trace]], epochs: float) -> None:
    print("at the end")
    for system, runs in traces.items():
        named = [run.incumbents(epochs)[-1][2] for run in runs]
        print(
            f"{system:10s} loss of the best trial trained to its end {spread(named, '.4f')}; "
            f"of all evaluations {spread([run.best().loss for run in runs], '.4f')}; "
            f"accuracy there {spread([run.best().accuracy for run in runs], '.4f')}; "
            f"{spread([run.config_epochs for run in runs], '.0f')} configuration-epochs; "
            f"{spread([run.seconds for run in runs], '.1f')} s"
        )


def print_races(traces: dict[str, list[Trace]], epochs: float) -> None:
    for system, runs in traces.items():
        if system == "volano" or "volano" not in traces:
            continue
        whole, reached = [], []
        for ours, theirs in zip(traces["volano"], runs, strict=True):
            goal = max(run.incumbents(epochs)[-1][2] for run in (ours, theirs))
            whole.append(ours.seconds / theirs.seconds)
            reached.append(seconds_to(ours, goal, epochs) / seconds_to(theirs, goal, epochs))
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
        f"torch {torch.__version__}, {os.cpu_count()} cores; {given.name}, {given.trials} trials, "
        f"{given.seeds} seeds"
    )
    traces: dict[str, list[Trace]] = {}
    for seed in range(given.seeds):
        for system in given.systems.split(","):
            trace = measure(
                system, given.name, trials=given.trials, epochs=given.epochs, seed=seed, prunes=True
            )
            traces.setdefault(system, []).append(trace)
            print(
                f"  seed {seed}: {system} {trace.seconds:.1f} s, best {trace.best().loss:.4f}",
                flush=True,
            )
    for least_epochs in (given.epochs, 0.0):
        print_budgets(traces, halving_epochs(given.trials, given.epochs), least_epochs)
    print_ends(traces, given.epochs)
    print_races(traces, given.epochs)


if __name__ == "__main__":
    main()
