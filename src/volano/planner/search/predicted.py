"""The candidates by prediction alone: which would be chosen if none of them ran, and what is said
of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from volano.plan import Plan
from volano.plan.explanation import Candidate
from volano.planner.cost_model import CostModel
from volano.planner.search.candidates import CandidateSpace

# How much faster than predicted a candidate may be: the median error of predictions (docs/log.md).
_PREDICTION_ERROR = 0.15


def predicted_candidates(
    plans: Iterable[Plan],
    cost_model: CostModel,
    num_steps: int,
    *,
    filling_steps: int,
    is_tight: bool,
) -> tuple[Candidate, ...]:
    """Returns the candidates with their predictions: the chosen one first, then those that fit, by
    time; of plans that are predicted alike the first comes first.

    Args:
        plans: the plans, none twice.
        cost_model: the cost model, which knows the budget.
        num_steps: the number of steps of the run.
        filling_steps: those of them in which what is kept of a frozen prefix is computed.
        is_tight: whether memory decides; otherwise a plan whose memory is not known fits.
    """
    found = [_candidate(plan, cost_model, num_steps, filling_steps) for plan in plans]
    best, *rest = sorted(found, key=lambda candidate: _preference(candidate, is_tight))
    chosen = dataclasses.replace(best, status="chosen", reason=_why(best, is_tight))
    return chosen, *(_beside(candidate, best, is_tight) for candidate in rest)


def possible_gain(
    candidates: Sequence[Candidate], eager_seconds: float, space: CandidateSpace
) -> float:
    """Returns the seconds of a run that a race may gain, if the best of the candidates is as much
    faster than predicted as predictions err; 0 if all of them need no measuring."""
    totals = [
        candidate.total
        for candidate in candidates
        if candidate.total is not None
        and candidate.status != "memory"
        and not space.is_trusted(candidate.plan)
    ]
    return max(0.0, eager_seconds - (1.0 - _PREDICTION_ERROR) * min(totals)) if totals else 0.0


def _candidate(plan: Plan, cost_model: CostModel, num_steps: int, filling_steps: int) -> Candidate:
    memory, predicted = cost_model.memory(plan), cost_model.time(plan)
    if predicted is None:
        return Candidate(plan=plan, status="untried", reason="it cannot be predicted")
    return Candidate(
        plan=plan,
        status="slower",
        reason="",
        predicted=predicted,
        startup=predicted.startup,
        total=predicted.startup
        + predicted.step * num_steps
        + cost_model.filling(plan) * min(filling_steps, num_steps),
        memory_bytes=None if memory is None else memory.peak,
        verdict=cost_model.verdict(plan),
    )


def _preference(candidate: Candidate, is_tight: bool) -> tuple[int, float]:
    """Returns the sort key: candidates that fit, then those that may, by time; if none does, the
    leanest first."""
    if candidate.total is None:
        return 4, 0.0
    if _fits(candidate, is_tight):
        return 0, candidate.total
    order = {"UNCERTAIN": 1, "NO": 2}.get(candidate.verdict or "", 3)
    return order, float(candidate.memory_bytes or 0)


def _fits(candidate: Candidate, is_tight: bool) -> bool:
    return candidate.verdict == "FITS" or (candidate.verdict is None and not is_tight)


def _why(best: Candidate, is_tight: bool) -> str:
    if best.total is None:
        return "nothing could be predicted"
    if _fits(best, is_tight):
        return "predicted to be the fastest that fits"
    return "nothing certainly fits; this is the leanest"


def _beside(candidate: Candidate, best: Candidate, is_tight: bool) -> Candidate:
    if candidate.total is None or not best.total:
        return candidate
    if not _fits(candidate, is_tight) and _fits(best, is_tight):
        certain = "does not fit" if candidate.verdict == "NO" else "may not fit"
        return dataclasses.replace(candidate, status="memory", reason=f"it {certain} the budget")
    return dataclasses.replace(
        candidate, reason=f"{candidate.total / best.total:.2f}x the chosen one's time"
    )
