"""Predictions for clusters that are not here, against published training runs of language models.

    python benchmarks/cluster_fit.py [CSV] [--fit] [--rows]

Each row of the table (data/published_clusters.csv: 139 runs on 8 to 128 A100, measured by the
authors of llm-foundry, 125 million to 65 billion parameters, full sharding; or another of the same
columns) is predicted from the catalogue's figures and the operations of that model
(transformer_steps.py): seconds of a step against the measured ones, and whether it fits. Beside it
stands the dumbest prior, one share of the peak for each kind of GPU, taken from the rows of the
other models. Rows of one device, of images, in fp8, or that cut layers or products into parts are
left out, and counted.

``--fit`` fits the five constants anew, on all rows and, for each model, on the rows of all others;
it is how those in planner/time/roofline.py and planner/cluster/sharded_step.py came about, which
are rounded. A second; with ``--fit`` half a minute.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import transformer_steps as steps
from volano.device.catalogue import KnownDevice, find_device, machine_of
from volano.plan import Plan
from volano.planner.cluster.sharded_step import ClusterLayout, shard_memory, shard_time
from volano.planner.time.roofline import Rates, predict_time

DATA = Path(__file__).parent / "data" / "published_clusters.csv"
# What the driver, the libraries and the exchanges keep for themselves, and the share that fragments
# take at least.
CONTEXT, RESERVE = int(2.5 * 2**30), 0.05
WANTED = 0.10
CONSTANTS = ("matmul", "attention", "link efficiency", "exposed", "hop")
# As tables write how a model is shared; what cuts layers or products into parts is not predicted.
SHARDINGS = (
    ("hybrid", r"hsdp|hybrid"),
    ("full", r"full|fsdp|zero-?[23]|grad_op"),
    ("none", r"ddp|none|no_shard|zero-?1|data par"),
)
LEFT_OUT = r"\b(tp|pp|cp|tensor|pipeline)\b|tp ?=? ?[2-9]|pp ?=? ?[2-9]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A published run: seconds of a step, and its share of the peak (recomputed operations
    counted)."""

    run: steps.Run
    device: KnownDevice
    network: float
    per_node: int
    seconds: float
    share: float
    is_compiled: bool


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """The rows that are predicted, and why others are not."""
    rows, left_out = [], []
    for line in csv.DictReader(path.open(encoding="utf-8")):
        try:
            rows.append(_row(line))
        except (ValueError, LookupError) as error:
            left_out.append(f"{line.get('id')}: {error}")
    return rows, left_out


def _row(line: dict[str, str]) -> Row:
    num_ranks = int(line["n_gpu"] or 1)
    if num_ranks < 2:
        raise ValueError("one device")
    device = find_device(line["gpu"])
    machine = machine_of(device)
    run = _run(line, num_ranks)
    told = re.search(r"(\d+) ?Gbps", line["source"])
    per_node = min(num_ranks, machine.per_node)
    seconds = _seconds(line, run)
    flops = sum(one.flops * one.count for one in steps.operations(run))
    return Row(
        run=run,
        device=device,
        network=machine.network if told is None else float(told[1]) * 1e9 / 8,
        per_node=per_node,
        seconds=seconds,
        share=flops / seconds / device.flops["bf16" if "bf16" in device.flops else "fp16"],
        is_compiled=line.get("compile", "").strip().lower() not in ("", "eager", "no", "false"),
    )


def _run(line: dict[str, str], num_ranks: int) -> steps.Run:
    precision, sharding = line["precision"], _sharding(line["sharding"])
    if not re.search("bf16|fp16", precision) or "fp8" in precision:
        raise ValueError(f"precision {precision}")
    if "img" in line["tput_unit"]:
        raise ValueError("images")
    micro_batch, length = int(float(line["micro_batch"])), int(float(line["seq_or_img"]))
    passes = int(float(line["grad_accum"])) if line["grad_accum"] else 0
    if not passes:
        passes = max(1, int(float(line["global_batch"] or 0)) // (micro_batch * num_ranks) or 1)
    model, millions = line["model"].split()[-1], float(line["params_M"])
    run = steps.Run(
        model=model, precision=precision, micro_batch=micro_batch, length=length, passes=passes,
        num_ranks=num_ranks, sharding=sharding,
        recompute=line["act_ckpt"].strip().lower() in ("true", "yes", "full"),
    )  # fmt: skip
    if line["model"].startswith("MPT") and model in steps.FAMILY:
        run = dataclasses.replace(run, shape=steps.FAMILY[model])
        assert abs(sum(steps.units(run).parameters) / 1e6 / millions - 1) < 0.01, line
        return run
    width, layers, vocabulary = steps.SHAPES[
        min(steps.SHAPES, key=lambda size: abs(math.log(size / millions)))
    ]
    run = dataclasses.replace(run, shape=(width, layers), vocabulary=vocabulary)
    first, *blocks = steps.units(run).parameters
    return dataclasses.replace(run, blocks_scale=max(0.1, (1e6 * millions - first) / sum(blocks)))


def _sharding(text: str) -> str:
    if re.search(LEFT_OUT, text.lower()):
        raise ValueError(f"sharding {text}")
    for name, pattern in SHARDINGS:
        if re.search(pattern, text.lower()):
            return name
    raise ValueError(f"sharding {text}")


def _seconds(line: dict[str, str], run: steps.Run) -> float:
    """Seconds of a step, from whatever throughput a row has."""
    unit, value = line["tput_unit"].lower().replace(" ", ""), float(line["throughput"])
    tokens, examples = run.tokens * run.passes, run.micro_batch * run.passes
    if unit.startswith(("s/", "sec/")):
        return value
    per_rank = tokens if unit.startswith("tok") else examples
    if not unit.startswith(("tok", "sample", "seq")):
        raise ValueError(f"throughput in {line['tput_unit']}")
    is_each = unit.endswith(("/gpu", "/device"))
    return per_rank / value * (1 if is_each else run.num_ranks)


def ranks_of(row: Row, **changes: float) -> ClusterLayout:
    ranks = ClusterLayout(
        world_size=row.run.num_ranks,
        per_node=row.per_node,
        interconnect=row.device.interconnect or row.device.host_link,
        network=row.network,
    )
    return dataclasses.replace(ranks, **changes)


def predicted_seconds(row: Row, rates: Rates, ranks: ClusterLayout) -> float:
    plan = Plan(device="accelerator", precision="bf16", compile=row.is_compiled)
    alone = predict_time(steps.operations(row.run), rates, plan)
    units, run = steps.units(row.run), row.run
    return shard_time(alone, units, ranks, passes=run.passes, sharding=run.sharding).step


def verdict(row: Row) -> str:
    run = row.run
    needed = shard_memory(steps.memory(run), steps.units(run), ranks_of(row), run.sharding)
    budget = row.device.memory - CONTEXT
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
            if other.device is row.device and other.run.model != row.run.model
        ]
        if others:
            errors.append(abs(row.share / statistics.median(others) - 1))
    return errors


def with_constants(row: Row, constants: Sequence[float]) -> float:
    matmul, attention, efficiency, exposed, hop = constants
    rates = Rates.of_known(row.device)
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
    for model in dict.fromkeys(row.run.model for row in rows):
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


def _print_rows(rows: Sequence[Row], signed: Sequence[float], verdicts: Sequence[str]) -> None:
    for row, error, word in zip(rows, signed, verdicts, strict=True):
        run = row.run
        print(
            f"{run.model:>5} {row.device.name} x{run.num_ranks:<4} {run.micro_batch:4} x "
            f"{run.length:<6} x{run.passes:<3} {run.sharding} "
            f"{'recomputed' if run.recompute else '':10} measured {row.seconds:8.3f} s  "
            f"{error:+7.1%}  {word}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=DATA)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--rows", action="store_true")
    options = parser.parse_args()
    rows, left_out = read_rows(options.path)
    signed = [
        predicted_seconds(row, Rates.of_known(row.device), ranks_of(row)) / row.seconds - 1
        for row in rows
    ]
    verdicts = [verdict(row) for row in rows]
    if options.rows:
        _print_rows(rows, signed, verdicts)
        print("\n".join(left_out))
    print(f"Seconds of a step, {len(rows)} rows; {len(left_out)} left out")
    errors = [abs(error) for error in signed]
    print(_line("  catalogue and operations", errors))
    for model in dict.fromkeys(row.run.model for row in rows):
        own = [error for row, error in zip(rows, signed, strict=True) if row.run.model == model]
        size = np.median(np.abs(own))
        print(
            f"    {model:>5}: {len(own):2} rows, median {np.median(own):+.1%}, of absolute errors "
            f"{size:.1%}"
        )
    if others := dumb_errors(rows):
        print(_line("  one share of the peak, other models' rows", others))
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
