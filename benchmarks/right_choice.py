"""Is the plan that planning chose the fastest admissible one? Every candidate of two tasks, run.

    python benchmarks/right_choice.py [SECONDS [TASK ...]]    three minutes for image and lstm

The search is the one that a run of so many seconds gets (300). Then every combination of every
admissible value of every raced knob runs for a second; the eight fastest and the chosen one run
again, in turn. Candidates that the guard strikes do not count: the fastest that passes it is what
the chosen plan is compared with.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

from on_device import baseline, device, take_device, words
from planning_tasks import make_task
from volano.device import Device
from volano.plan import Plan
from volano.plan.explanation import Candidate
from volano.planner import PlanRequest, find_plan
from volano.planner.parity.guard import ParityGuard
from volano.planner.search.candidates import admissible
from volano.planner.search.timing import HeldAllocator, TimingRun, TimingRuns
from volano.planner.task_profile import profile_task

HEAT_SECONDS, ROUNDS, SLICE_SECONDS, NUM_FINALISTS = 0.6, 9, 0.25, 8
WANTED = 1.05


def compare(name: str, seconds: float) -> float:
    task = make_task(name, 10**6)
    start = time.perf_counter()
    found = find_plan(task, PlanRequest(device=device().name, seconds=seconds, recalls=False))
    planning = time.perf_counter() - start
    base = baseline().pin(feed=found.plan.feed, workers=found.plan.workers)
    facts = profile_task(task, device())
    space = admissible(task, facts, base, pins={})
    plans = list(space.plans())
    batches = [device().move(batch) for batch in facts.batches]
    timing_runs = TimingRuns(task, batches, lambda: 1e9)
    for plan in plans:
        lap = timing_runs.run(plan, seconds=HEAT_SECONDS)
        took = (
            "failed"
            if lap.step is None
            else f"{lap.step * 1e3:.2f} ms, start-up {lap.startup:.1f} s"
        )
        print(f"  {changes_text(plan, base):60s} {took}", flush=True)
    ran = sorted(
        (lap for lap in timing_runs.timings.values() if lap.step is not None),
        key=lambda one: one.step or 0.0,
    )
    finalists = list(dict.fromkeys([found.plan, *(lap.plan for lap in ran[:NUM_FINALISTS])]))
    steps = in_turn(task, batches, finalists)
    judge = ParityGuard(task, device(), lambda: 60.0)
    verdicts = {plan: plan == base or judge.parity(plan).passed for plan in finalists}
    for plan in sorted(finalists, key=lambda plan: steps[plan]):
        word = "passes the guard" if verdicts[plan] else "rejected by the guard"
        print(
            f"  again: {changes_text(plan, base):53s} {steps[plan] * 1e3:.2f} ms, {word}",
            flush=True,
        )
    best = min((plan for plan in finalists if verdicts[plan]), key=lambda plan: steps[plan])
    ratio = steps[found.plan] / steps[best]
    print(
        f"{name}: {len(plans)} candidates; planning for {seconds:g} s took {planning:.1f} s and "
        "chose "
        f"{changes_text(found.plan, base)}: {ratio:.3f} of the best admissible step "
        f"({changes_text(best, base)}); wanted {WANTED}",
        flush=True,
    )
    return ratio


def in_turn(task: Any, batches: Any, plans: list[Plan]) -> dict[Plan, float]:
    """Median seconds of a step of each plan, all of them running in turn."""
    allocator = HeldAllocator(Device("cpu"))
    heats = [TimingRun(task, plan, batches, allocator) for plan in plans]
    # An allocator that changes has to warm up again.
    heats.sort(key=lambda heat: heat.plan.allocator)
    for _ in range(ROUNDS):
        for heat in heats:
            heat.run(SLICE_SECONDS)
    allocator.close()
    return {heat.plan: heat.step for heat in heats}


def changes_text(plan: Plan, base: Plan) -> str:
    return Candidate(plan=plan, status="slower", reason="").changes_text(base)


def main() -> None:
    take_device()
    print(words())
    with tempfile.TemporaryDirectory() as cache:
        import os

        os.environ["XDG_CACHE_HOME"] = cache
        seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
        ratios = [compare(name, seconds) for name in sys.argv[2:] or ("image", "lstm")]
    print(f"worst {max(ratios):.3f}")


if __name__ == "__main__":
    main()
