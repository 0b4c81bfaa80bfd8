"""How far the predicted seconds of a step are from the measured ones, over all candidates of six
tasks that are raced.

    python benchmarks/prediction_error.py [--compile] [TASK ...]          about three minutes

Each task of planning_tasks.py is planned as ``volano explain --race`` plans it, with caches that
are empty at first. Three predictions of each candidate:

    rates      from the operations and the rates of this machine alone, no step having run
    told       the same, corrected by some steps of plain eager and of the safe choices (memory
               kept, the update fused): what is shown before a race
    others     as told, on a machine that has raced the other tasks before

The plans that correct the others count for ``rates`` alone. Wanted: median error 15 %, worst factor
2. Compiled candidates take some minutes more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import volano
from on_device import device, take_device
from planning_tasks import NAMES, make_task
from volano.plan import Plan
from volano.plan.explanation import Explanation
from volano.planner import PlanRequest, find_plan
from volano.record.cache_folder import cache_folder

WANTED_MEDIAN, WANTED_WORST = 0.15, 2.0
_STEPS = 100_000  # so that nothing is left out as too short a run
Steps = dict[Plan, float]


def explain(task: volano.Task, *, compiles: bool, **request: Any) -> Explanation:
    """The explanation of a task's plan, without remembered ones."""
    asked = PlanRequest(
        device=device().name, is_free=True, recalls=False,
        forbid={} if compiles else {"compile": True}, **request,
    )  # fmt: skip
    found = find_plan(task, asked).explanation
    assert found is not None
    return found


def predicted(found: Explanation) -> Steps:
    """Seconds of a step by plan, as they were predicted."""
    return {c.plan: c.predicted.step for c in found.candidates if c.predicted is not None}


def calibration() -> Path:
    return cache_folder() / "calibration.json"


def calibration_of(records: Iterable[dict]) -> dict:
    """Several calibrations as one, each class's measurements one after the other."""
    ratios: dict[str, list[float]] = defaultdict(list)
    version = 1
    for record in records:
        version = record["schema_version"]
        for key, values in record["ratios"].items():
            ratios[key] += values
    return {"schema_version": version, "ratios": ratios}


def errors(name: str, pairs: list[tuple[float, float]]) -> tuple[str, bool]:
    """A line about predictions beside measurements, and whether they are as wanted."""
    median = statistics.median(abs(p / m - 1.0) for p, m in pairs)
    worst = max(max(p / m, m / p) for p, m in pairs)
    line = (
        f"{name:8} {len(pairs):3} candidates: median error {median:6.1%}, worst factor {worst:.2f}"
    )
    return line, median <= WANTED_MEDIAN and worst <= WANTED_WORST


def compare(names: list[str], *, compiles: bool) -> None:
    tasks = {name: make_task(name, _STEPS) for name in names}
    plain: dict[str, Plan] = {}
    timed: dict[str, Steps] = {}
    columns: dict[str, dict[str, Steps]] = {"rates": {}, "told": {}, "others": {}}
    measured: dict[str, Steps] = {}
    learned: dict[str, dict] = {}
    for name, task in tasks.items():
        calibration().unlink(missing_ok=True)
        columns["rates"][name] = predicted(explain(task, compiles=compiles, is_raced=False))
        raced = explain(task, compiles=compiles, is_raced=True)
        columns["told"][name] = predicted(raced)
        steps = {c.plan: c.measured for c in raced.candidates if c.measured}
        eager = next((plan for plan in steps if _is_plain(plan)), None)
        if eager is None or not calibration().exists():
            print(f"{name:7} left out: plain eager did not run, or nothing was predicted")
            continue
        measured[name], plain[name] = steps, eager
        timed[name] = {
            c.plan: c.measured
            for c in raced.candidates
            if c.predicted is not None and c.predicted.origin == "timed" and c.measured
        }
        learned[name] = json.loads(calibration().read_text())
    for name in measured:
        others = [record for other, record in learned.items() if other != name]
        calibration().write_text(json.dumps(calibration_of(others)))
        found = explain(tasks[name], compiles=compiles, is_raced=False, timed=timed[name])
        columns["others"][name] = predicted(found)
    show(columns, measured, plain, timed)


def _is_plain(plan: Plan) -> bool:
    changes = Plan.baseline(plan.device).changes(plan)
    return set(changes) <= {"feed", "workers"}


def show(
    columns: dict[str, dict[str, Steps]],
    measured: dict[str, Steps],
    plain: dict[str, Plan],
    timed: dict[str, Steps],
) -> None:
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in columns}
    for task, steps in measured.items():
        for plan, seconds in steps.items():
            texts = []
            for name, found in columns.items():
                step = found[task].get(plan)
                texts.append("   -   " if step is None else f"{1e3 * step:7.2f}")
                if step is not None and (name == "rates" or plan not in timed[task]):
                    pairs[name].append((step, seconds))
            label = plain[task].changes(plan) or {"plain eager": ""}
            words = " ".join(
                f"{knob}={value[1]}" if value else knob for knob, value in label.items()
            )
            print(f"{task:7} {', '.join(texts)} -> {1e3 * seconds:8.2f} ms  {words}")
    for name, found in pairs.items():
        if found:
            line, is_met = errors(name, found)
            print(f"{line}; {'as wanted' if is_met else 'MISSED'}")


def main() -> None:
    take_device()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true", help="race compiled candidates too")
    parser.add_argument("names", nargs="*", metavar="TASK", help=", ".join(NAMES))
    given = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{cache}/inductor"
        compare(given.names or list(NAMES), compiles=given.compile)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
