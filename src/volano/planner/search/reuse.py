"""Takes up a plan that was found before, for a run that may have another length."""

from __future__ import annotations

import dataclasses
import time

from volano.plan import Plan
from volano.plan.explanation import Candidate, Explanation, Status
from volano.planner.cache.store import Remembered, recall
from volano.planner.request import PlanRequest, PlanResult
from volano.planner.search.candidates import CandidateSpace
from volano.planner.search.explain import headline
from volano.planner.search.fit_memory import MEMORY_KNOBS

# A search for a run this much shorter left candidates untried that a longer run pays for.
_LONGER = 2.0


def recalled(
    key: str, space: CandidateSpace, request: PlanRequest, num_steps: int, steps_per_epoch: int = 0
) -> PlanResult | None:
    """Returns the plan for a fingerprint, decided again for the length of this run and of its
    epochs; None if it must be searched for."""
    before = recall(key)
    if before is None:
        return None
    old = _with_feed_of(space.base, before.explanation)
    eager = next((c for c in old.candidates if c.plan == space.base), None)
    length = _length(request, eager, num_steps)
    was_cut_short = any(candidate.status == "untried" for candidate in old.candidates)
    if was_cut_short and (request.is_thorough or length > _LONGER * max(1, old.num_steps)):
        return None
    # Only plans that the guard has passed, or that need no guard.
    able = [
        c
        for c in old.candidates
        if (c.status == "chosen" or (c.status == "slower" and c.plan in (space.base, space.safe)))
        and c.measured is not None
        and _is_in(space, c.plan)
    ]
    if not able:
        return None
    filled = min(length, steps_per_epoch)
    chosen = min(able, key=lambda c: _total(c, length, filled))
    explanation = _for_this_run(old, chosen, space.base, length, filled)
    return PlanResult(
        plan=chosen.plan,
        explanation=explanation,
        reasons=(f"{headline(explanation)}; planned {_ago(before)} (volano plans show {key[:8]})",),
        step=chosen.measured,
        startup=(chosen.startup or 0.0) + chosen.filling * filled,
        may_split=before.may_split,
    )


def _with_feed_of(base: Plan, old: Explanation) -> Explanation:
    """Returns the explanation with the feed that was chosen now: it is measured next to the race,
    which has batches at hand."""

    def renewed(plan: Plan) -> Plan:
        return plan.pin(feed=base.feed, workers=base.workers)

    candidates = tuple(dataclasses.replace(c, plan=renewed(c.plan)) for c in old.candidates)
    return dataclasses.replace(old, plan=renewed(old.plan), candidates=candidates)


def _is_in(space: CandidateSpace, plan: Plan) -> bool:
    """Checks whether the space still has every value of the plan; the allocator may be one that a
    plan takes to fit."""
    return all(
        getattr(plan, knob) in values
        for knob, values in space.options.items()
        if knob not in MEMORY_KNOBS
    )


def _length(request: PlanRequest, eager: Candidate | None, num_steps: int) -> int:
    if request.seconds is None:
        return num_steps
    step = None if eager is None else eager.measured
    return max(1, int(request.seconds / step)) if step else num_steps


def _total(candidate: Candidate, length: int, filled: int) -> float:
    step = candidate.measured or 0.0
    return (candidate.startup or 0.0) + length * step + filled * candidate.filling


def _for_this_run(
    old: Explanation, chosen: Candidate, base: Plan, length: int, filled: int
) -> Explanation:
    candidates = [_again(candidate, chosen, length, filled) for candidate in old.candidates]
    candidates.sort(key=lambda c: (c.status != "chosen", c.total is None, c.total or 0.0))
    return dataclasses.replace(
        old,
        origin="remembered",
        num_steps=length,
        memory=old.memory if chosen.plan == old.plan else None,
        **Explanation.following_from(candidates, base),
    )


def _again(candidate: Candidate, chosen: Candidate, length: int, filled: int) -> Candidate:
    """Returns a remembered candidate for a run of another length."""
    status: Status = candidate.status
    reason = candidate.reason
    if candidate is chosen:
        status = "chosen"
        reason = reason if candidate.status == "chosen" else f"the fastest for {length:,} steps"
    elif candidate.status == "chosen":
        status, reason = "slower", f"its start-up does not pay in {length:,} steps"
    total = None if candidate.measured is None else _total(candidate, length, filled)
    return dataclasses.replace(candidate, status=status, total=total, reason=reason)


def _ago(before: Remembered) -> str:
    seconds = max(0.0, time.time() - before.created)
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
