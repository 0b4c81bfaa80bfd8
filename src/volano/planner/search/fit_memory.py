"""Makes a plan fit into memory without changing the experiment: micro-batches, recomputation,
offloading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volano.device import Device
from volano.errors import PlanError
from volano.plan import Plan, knobs_with
from volano.planner.cost_model import CostModel
from volano.planner.parity.guard import ParityGuard
from volano.planner.request import PlanRequest
from volano.planner.search.candidates import CandidateSpace
from volano.record.format import bytes_text
from volano.task import Task

# The knobs that fit a plan into memory; the race leaves these as they are.
MEMORY_KNOBS = knobs_with("fits_memory")
# Note for memory that cannot be predicted: it is found out by running.
_MAY_FIT = ("FITS", None)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The ways in which a plan fits.

    Attributes:
        ways: values of :data:`MEMORY_KNOBS`, the likely fastest first; empty if nothing fits.
        needed: bytes of budget that the leanest way needs.
        missing: why no leaner one is left, in words.
    """

    ways: tuple[Mapping[str, Any], ...]
    needed: int
    missing: str

    def applied(self, plan: Plan, number: int = 0) -> Plan | None:
        """Applies one of the ways to the plan. Returns None if there are not so many."""
        return plan.pin(**self.ways[number]) if number < len(self.ways) else None

    def error(self, budget: int) -> PlanError:
        """Returns the error that nothing fits."""
        return PlanError(
            f"A plan must fit into {bytes_text(budget)}",
            got=f"the leanest one, which needs about {bytes_text(self.needed)}",
            remedy=f"Give a budget of {bytes_text(self.needed)} at least; {self.missing}",
        )


def fit_memory(
    task: Task,
    plan: Plan,
    cost_model: CostModel,
    *,
    pins: Mapping[str, Any],
    guard: ParityGuard,
    forbidden: Mapping[str, tuple[Any, ...]] | None = None,
) -> Fit:
    """Finds the ways in which a plan fits the cost model's budget, by knobs in the order of their
    cost.

    Args:
        task: the task to plan.
        plan: the plan without memory knobs.
        cost_model: the cost model, which predicts memory and knows the budget.
        pins: the user's pins, which are kept.
        guard: finds out whether the batch may be split, if that is needed.
        forbidden: knob -> values that the user excludes.
    """
    forbidden = forbidden or {}
    refused: list[str] = []
    ways: list[Mapping[str, Any]] = []
    leanest, doubtful, widest = plan, None, 0
    why_whole = why_whole_batch(task, pins)
    for knobs in _memory_pins(plan, cost_model, pins, forbidden, refused):
        sizes = [
            size
            for size in micro_batches(task.batch_size, plan, why_whole, guard)
            if size is None
            or size == plan.micro_batch
            or size not in forbidden.get("micro_batch", ())
        ]
        tried = [plan.pin(**knobs, micro_batch=size) for size in sizes]
        number = _first_that_fits([lambda one=one: cost_model.verdict(one) for one in tried])
        leanest = tried[-1]
        if number is None:
            doubtful = leanest if cost_model.verdict(leanest) == "UNCERTAIN" else doubtful
            continue
        size = sizes[number] or task.batch_size
        if size > widest:  # a leaner step that costs more only pays off with a larger micro-batch
            ways.append({**knobs, "micro_batch": sizes[number]})
            widest = size
        if widest == task.batch_size:
            break
    if not ways and doubtful is not None:
        ways.append({knob: getattr(doubtful, knob) for knob in MEMORY_KNOBS})
    return Fit(
        ways=tuple(ways),
        needed=cost_model.needed(leanest) or 0,
        missing=_missing(refused, why_whole, guard),
    )


def fit_each(
    task: Task,
    space: CandidateSpace,
    cost_model: CostModel,
    request: PlanRequest,
    guard: ParityGuard,
) -> dict[str, Fit]:
    """Finds the ways in which the safe choices fit in each precision.

    Raises:
        PlanError: a run was given a budget, and nothing tells whether it is kept.
    """
    found = {
        precision: fit_memory(
            task, space.safe.pin(precision=precision), cost_model,
            pins=request.pins, guard=guard, forbidden=request.forbid,
        )
        for precision in space.options["precision"]
    }  # fmt: skip
    waits = request.budget is not None and not request.is_free
    if waits and cost_model.memory(space.safe) is None:
        raise PlanError(
            "The memory of a step must be predictable if a budget is given",
            got="; ".join(cost_model.notices) or "no prediction",
            remedy="Leave the budget out, and see what the run takes",
        )
    return found


def _first_that_fits(verdicts: Sequence[Callable[[], str | None]]) -> int | None:
    """Returns the position of the first plan that fits, of plans from large to small; None if none
    does. Each look costs a capture, so the interval is halved."""
    if verdicts[0]() in _MAY_FIT:
        return 0
    if verdicts[-1]() not in _MAY_FIT:
        return None
    low, high = 0, len(verdicts) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if verdicts[middle]() in _MAY_FIT else (middle, high)
    return high


def _memory_pins(
    plan: Plan,
    cost_model: CostModel,
    pins: Mapping[str, Any],
    forbidden: Mapping[str, tuple[Any, ...]],
    refused: list[str],
) -> Iterator[dict[str, Any]]:
    """Returns combinations of the memory knobs other than micro-batches, the cheapest first."""
    lean: dict[str, Any] = {}
    is_free = "allocator" not in pins and "return" not in forbidden.get("allocator", ())
    if is_free and cost_model.profile.can_keep_memory and Device(plan.device).is_cpu:
        # Gaps between the blocks of a heap take more than half of it again.
        lean = {"allocator": "return"}
    choices: dict[str, Any] = {}
    yield from _distinct({}, lean)
    if "recompute" in pins:
        refused.append(f"recompute: recompute is pinned to {plan.recompute}")
    elif "blocks" in forbidden.get("recompute", ()):
        refused.append("recompute: forbidden by you")
    elif not cost_model.profile.blocks:
        refused.append("recompute: the model has no repeated blocks")
    else:
        choices["recompute"] = "blocks"
        yield from _distinct(choices, {**choices, **lean})
    if Device(plan.device).is_cpu:
        refused.append("offload: the device's memory is the host's")
    elif "offload" not in pins:
        for value in ("optimizer", "all"):
            if value not in forbidden.get("offload", ()):
                yield {**choices, "offload": value}


def _distinct(*choices: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield dict(choices[0])
    yield from (choice for choice in choices[1:] if choice != choices[0])


def why_whole_batch(task: Task, pins: Mapping[str, Any]) -> str | None:
    """Returns why the size of the micro-batch is fixed, whatever the batch; None if it may be
    chosen."""
    if "micro_batch" in pins:
        return f"it is pinned to {pins['micro_batch']}"
    # Sums over parts are rounded elsewhere.
    return "the task's tolerance is 'exact'" if task.tolerance == "exact" else None


def micro_batches(
    batch_size: int, plan: Plan, why_whole: str | None, guard: ParityGuard
) -> Iterator[int | None]:
    """Returns the whole batch, then halves of it; only the plan's size if that is fixed."""
    yield plan.micro_batch
    if why_whole is not None or not guard.divisible.yes:
        return
    size = batch_size
    while size > 1:
        size = -(-size // 2)
        yield size


def _missing(refused: list[str], why_whole: str | None, guard: ParityGuard) -> str:
    reasons = list(dict.fromkeys(refused))
    if why_whole is not None:
        reasons.insert(0, f"micro_batch: {why_whole}")
    elif guard.may_split is False:
        reasons.insert(0, f"micro_batch: {guard.divisible.reason}")
    return "; ".join(reasons) or "every knob is in use"
