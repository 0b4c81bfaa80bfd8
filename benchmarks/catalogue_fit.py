"""Predictions for accelerators that are not here, against 139 published training runs of language
models on A100.

    python benchmarks/catalogue_fit.py [--fit] [--rows]

Each row of data/mpt_on_a100.csv (measured by the authors of llm-foundry: 125 million to 65 billion
parameters, 8 to 128 ranks, full sharding) is predicted from the catalogue's figures and the
operations of that model (mpt.py): seconds of a step against the measured ones, and whether it fits.
Beside it stands the dumbest prior, one share of the peak for each kind of GPU, taken from the rows
of the other models.

``--fit`` fits the five constants anew, on all rows and, for each model, on the rows of all others;
it is how those in planner/time/roofline.py and sharded_model.py came about, which are rounded. A
second; with ``--fit`` half a minute.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import mpt
from sharded_model import Ranks, shard_memory, shard_time
from volano.device import find_device
from volano.plan import Plan
from volano.planner.time.roofline import Rates, predict_time

DATA = Path(__file__).parent / "data" / "mpt_on_a100.csv"
PLAN = Plan(device="a100", precision="bf16")
NETWORK = 1600e9 / 8  # bytes per second between machines, as the source states
# What the driver, the libraries and the exchanges keep for themselves, and the share that fragments
# take at least.
CONTEXT, RESERVE = int(2.5 * 2**30), 0.05
WANTED = 0.15
CONSTANTS = ("matmul", "attention", "link efficiency", "exposed", "hop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A published run: seconds of a step, and its share of the peak (recomputed operations
    counted)."""

    run: mpt.Run
    gpu: str
    seconds: float
    share: float


def read_rows() -> list[Row]:
    rows = []
    for line in csv.DictReader(DATA.open(encoding="utf-8")):
        run = mpt.Run(
            model=line["model"],
            precision=line["precision"],
            micro_batch=int(line["micro_batch"]),
            length=int(line["length"]),
            passes=int(line["passes"]),
            num_ranks=int(line["ranks"]),
            recompute=line["recompute"] == "yes",
        )
        count = sum(mpt.units(run).parameters) / 1e6
        assert abs(count / float(line["parameters_millions"]) - 1) < 0.01, line
        seconds = run.tokens * run.passes / float(line["tokens_per_second_per_gpu"])
        rows.append(
            Row(run=run, gpu=line["gpu"], seconds=seconds, share=float(line["hfu_percent"]) / 100)
        )
    return rows


def rates_of(row: Row) -> Rates:
    return Rates.of_known(find_device(row.gpu))


def ranks_of(row: Row, **changes: float) -> Ranks:
    interconnect = rates_of(row).interconnect
    assert interconnect is not None
    ranks = Ranks(world_size=row.run.num_ranks, interconnect=interconnect, network=NETWORK)
    return dataclasses.replace(ranks, **changes)


def predicted_seconds(row: Row, rates: Rates, ranks: Ranks) -> float:
    alone = predict_time(mpt.operations(row.run), rates, PLAN)
    return shard_time(alone, mpt.units(row.run), ranks, passes=row.run.passes).step


def verdict(row: Row) -> str:
    needed = shard_memory(mpt.memory(row.run), mpt.units(row.run), ranks_of(row))
    budget = find_device(row.gpu).memory - CONTEXT
    if needed.upper <= budget * (1 - RESERVE):
        return "FITS"
    return "NO" if needed.lower > budget else "UNCERTAIN"


def dumb_errors(rows: Sequence[Row]) -> list[float]:
    """Of one share of the peak for each GPU and model, the median of the other models' rows."""
    errors = []
    for row in rows:
        others = [
            other.share
            for other in rows
            if other.gpu == row.gpu and other.run.model != row.run.model
        ]
        errors.append(abs(row.share / statistics.median(others) - 1))
    return errors


def with_constants(row: Row, constants: Sequence[float]) -> float:
    matmul, attention, efficiency, exposed, hop = constants
    rates = rates_of(row)
    rates = dataclasses.replace(
        rates, efficiency={**rates.efficiency, "matmul": matmul, "attention": attention}
    )
    return predicted_seconds(
        row, rates, ranks_of(row, efficiency=efficiency, exposed=exposed, hop=hop)
    )


def fit(rows: Sequence[Row]) -> list[float]:
    """Constants with the least mean of absolute logarithms of errors; within what is physically
    possible."""
    from scipy.optimize import minimize

    low, high = np.array([0.4, 0.1, 0.3, 0.0, 1e-6]), np.array([0.95, 0.95, 0.95, 1.0, 5e-5])

    def inside(free: np.ndarray) -> np.ndarray:
        return low + (high - low) / (1 + np.exp(-free))

    def loss(free: np.ndarray) -> float:
        constants = inside(free)
        return float(
            np.mean([abs(math.log(with_constants(row, constants) / row.seconds)) for row in rows])
        )

    start = np.array([1.4, 0.4, 0.5, 0.0, -0.5])
    found = minimize(
        loss, start, method="Nelder-Mead", options={"maxiter": 250, "xatol": 1e-2, "fatol": 1e-5}
    )
    return [float(value) for value in inside(found.x)]


def left_out_errors(rows: Sequence[Row]) -> list[float]:
    errors = []
    for model in mpt.FAMILY:
        constants = fit([row for row in rows if row.run.model != model])
        own = [row for row in rows if row.run.model == model]
        errors += [abs(with_constants(row, constants) / row.seconds - 1) for row in own]
        median = np.median(errors[-len(own) :])
        print(
            f"  without {model:>4}: {_show(constants)}; its {len(own):2} rows: median {median:.1%}"
        )
    return errors


def _show(constants: Sequence[float]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" for name, value in zip(CONSTANTS, constants, strict=True)
    )


def _larger(row: Row) -> Row:
    return dataclasses.replace(
        row, run=dataclasses.replace(row.run, micro_batch=4 * row.run.micro_batch)
    )


def _counted(verdicts: Sequence[str]) -> str:
    return ", ".join(f"{verdicts.count(word)} {word}" for word in ("FITS", "UNCERTAIN", "NO"))


def _line(name: str, errors: Sequence[float]) -> str:
    return (
        f"{name:44} median {np.median(errors):6.1%}   p90 {np.quantile(errors, 0.9):6.1%}   "
        f"worst {max(errors):6.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--rows", action="store_true")
    options = parser.parse_args()
    rows = read_rows()
    signed = [
        predicted_seconds(row, rates_of(row), ranks_of(row)) / row.seconds - 1 for row in rows
    ]
    verdicts = [verdict(row) for row in rows]
    if options.rows:
        for row, error, word in zip(rows, signed, verdicts, strict=True):
            run = row.run
            print(
                f"{run.model:>5} {row.gpu} x{run.num_ranks:<4} {run.micro_batch:4} x "
                f"{run.length:<6} x{run.passes:<3} "
                f"{'recomputed' if run.recompute else '':10} measured {row.seconds:8.3f} s  "
                f"{error:+7.1%}  {word}"
            )
    print(f"Seconds of a step, {len(rows)} rows")
    errors = [abs(error) for error in signed]
    print(_line("  catalogue and operations", errors))
    for model in mpt.FAMILY:
        own = [error for row, error in zip(rows, signed, strict=True) if row.run.model == model]
        size = np.median(np.abs(own))
        print(
            f"    {model:>5}: {len(own):2} rows, median {np.median(own):+.1%}, of absolute errors "
            f"{size:.1%}"
        )
    print(_line("  one share of the peak, other models' rows", dumb_errors(rows)))
    if options.fit:
        print(f"  fitted on all rows: {_show(fit(rows))}")
        print(_line("  fitted on other models' rows", left_out_errors(rows)))
    print(f"Verdicts of runs that all ran: {_counted(verdicts)}")
    print(
        "Of the same with micro-batches four times as large: "
        f"{_counted([verdict(_larger(row)) for row in rows])}"
    )
    good = np.median(errors) <= WANTED and "NO" not in verdicts
    print(f"{'met' if good else 'MISSED'}: median error at most {WANTED:.0%}, none told NO")


if __name__ == "__main__":
    main()
