"""Turns the findings of a search into its answer: every candidate with its figures and what became
of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from volano.device import describe_machine
from volano.plan import Plan, changes_text
from volano.plan.explanation import Candidate, Explanation, Status
from volano.planner.cost_model import CostModel
from volano.planner.request import PlanRequest, PlanResult
from volano.planner.search.candidates import CandidateSpace
from volano.planner.search.fit_memory import Fit
from volano.planner.search.race import CandidateRace
from volano.planner.search.timing import Timing
from volano.planner.task_profile import TaskProfile, filling_steps
from volano.task import Task


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The findings of a search.

    Attributes:
        task: the whole task, of all ranks.
        request: the request to the planner.
        profile: the task's profile on the device.
        space: the candidates.
        race: the race; None if there was none.
        chosen: the plan that was taken.
        origin: see :class:`Explanation`.
        num_steps: number of steps of the run.
        allowed: seconds that planning might cost.
        struck: candidates that the guard rejected: plan -> reason and figures.
        passed: candidates that the guard passed: plan -> figures.
        unchecked: candidates that the guard did not check, for lack of time.
        predicted: the candidates by prediction, the chosen one first, if none of them ran.
        may_split: whether the batch may be split; None if that is not known.
        too_large: the leanest way, if nothing fits the budget.
    """

    task: Task
    request: PlanRequest
    profile: TaskProfile
    space: CandidateSpace
    cost_model: CostModel
    race: CandidateRace | None
    chosen: Plan
    origin: str
    num_steps: int
    allowed: float
    struck: Mapping[Plan, tuple[str, Mapping[str, float]]] = field(default_factory=dict)
    passed: Mapping[Plan, Mapping[str, float]] = field(default_factory=dict)
    unchecked: Collection[Plan] = ()
    predicted: tuple[Candidate, ...] = ()
    may_split: bool | None = None
    too_large: Fit | None = None

    @property
    def timings(self) -> Mapping[Plan, Timing]:
        """The timings of the candidates that ran."""
        return {} if self.race is None else self.race.timings


def answer(findings: Findings) -> PlanResult:
    """Returns the plan, its explanation and its notices. The search's own seconds are not filled
    in."""
    candidates = _candidates(findings)
    chosen, cost_model, too_large = candidates[0], findings.cost_model, findings.too_large
    explanation = Explanation(
        task=findings.task.name,
        device=findings.profile.device.name,
        device_name=describe_machine(findings.profile.device).device_name,
        is_present=True,
        origin=findings.origin,
        num_steps=findings.num_steps,
        num_examples=findings.task.batch_size,
        planning_seconds=0.0,
        budget=findings.request.budget,
        memory=cost_model.memory(findings.chosen),
        refused=findings.space.refused,
        notices=tuple(cost_model.notices),
        **Explanation.following_from(candidates, findings.space.base),
    )
    if too_large is not None:
        notice = str(too_large.error(cost_model.budget or 0))
        explanation = dataclasses.replace(
            explanation,
            verdict="NO",
            needed=too_large.needed,
            notices=(*explanation.notices, notice),
        )
    return PlanResult(
        plan=findings.chosen,
        explanation=explanation,
        reasons=(headline(explanation), *_said_of_memory(explanation), *_said_of_struck(findings)),
        step=chosen.measured, may_split=findings.may_split,
        startup=_startup_left(findings, chosen) + chosen.filling * filling_steps(findings.task),
    )  # fmt: skip


def headline(explanation: Explanation) -> str:
    """Describes the decision in one line."""
    chosen, base = explanation.candidates[0], explanation.plan.plain
    text = f"plan: {chosen.changes_text(Plan.baseline(base.device))}"
    if chosen.measured is None:
        return text
    text += f", {chosen.measured * 1e3:.3g} ms a step"
    plain = [
        c
        for c in explanation.candidates
        if set(base.changes(c.plan)) <= {"feed", "workers", "threads"}
    ]
    if plain and plain[0] is not chosen and plain[0].measured is not None:
        text += (
            f" (plain eager {plain[0].measured * 1e3:.3g}, "
            f"{plain[0].measured / chosen.measured:.2f}x)"
        )
    return text


def _startup_left(findings: Findings, chosen: Candidate) -> float:
    # This process does not compile again what it has compiled; ranks are other processes.
    return (
        (chosen.startup or 0.0) if findings.request.world_size > 1 or findings.race is None else 0.0
    )


def _said_of_memory(explanation: Explanation) -> list[str]:
    memory = explanation.memory
    if explanation.budget is None or memory is None or explanation.verdict != "UNCERTAIN":
        return []
    low, high = (f"{value / 2**20:,.0f} MiB" for value in (memory.lower, memory.upper))
    return [f"it may not stay within the budget: it takes {low} at least and {high} at most"]


def _said_of_struck(findings: Findings) -> list[str]:
    base = findings.space.base
    return [
        f"rejected by the guard: {changes_text(plan, base)}: {reason}"
        for plan, (reason, figures) in findings.struck.items()
        if figures
    ]


def _candidates(findings: Findings) -> tuple[Candidate, ...]:
    """Returns all candidates: the chosen one first, then by the seconds of the whole run."""
    space, race = findings.space, findings.race
    if findings.predicted:
        unseen = _unseen(space, [candidate.plan for candidate in findings.predicted])
        return (*findings.predicted, *(_candidate(plan, findings) for plan in unseen))
    looked_at = [findings.chosen, *findings.timings, space.base, space.safe]
    if race is not None:
        eager = race.eager_plans()
        looked_at += eager
        if True in space.options["compile"]:
            looked_at += [plan.pin(compile=True, prefix="computed") for plan in eager]
    looked_at += _unseen(space, looked_at)
    found = [_candidate(plan, findings) for plan in dict.fromkeys(looked_at)]
    return (
        found[0],
        *sorted(found[1:], key=lambda candidate: (candidate.total is None, candidate.total or 0.0)),
    )


def _unseen(space: CandidateSpace, looked_at: list[Plan]) -> list[Plan]:
    """Returns one plan for every admissible value that no other plan has and of which nothing was
    reported."""
    said = {(refusal.knob, refusal.value) for refusal in space.refused}
    return [
        space.safe.pin(**{knob: value}, **({"compile": True} if knob == "compile_mode" else {}))
        for knob, values in space.options.items()
        for value in values
        if (knob, value) not in said and all(getattr(plan, knob) != value for plan in looked_at)
    ]


def _candidate(plan: Plan, findings: Findings) -> Candidate:
    cost_model, timing = findings.cost_model, findings.timings.get(plan)
    predicted = cost_model.time(plan) if findings.space.is_predicted(plan) else None
    memory = cost_model.memory(plan)
    step = None if timing is None else timing.step
    startup = (
        timing.startup if timing is not None else None if predicted is None else predicted.startup
    )
    status, reason = _status(plan, findings, timing)
    return Candidate(
        plan=plan,
        status=status,
        reason=reason,
        predicted=predicted,
        measured=step,
        startup=startup,
        filling=0.0 if timing is None or findings.race is None else findings.race.filling(timing),
        total=None
        if timing is None or step is None or findings.race is None
        else findings.race.cost(timing),
        memory_bytes=None if memory is None else memory.peak,
        verdict=cost_model.verdict(plan),
        parity=findings.passed.get(plan) or findings.struck.get(plan, ("", {}))[1],
    )


def _status(plan: Plan, findings: Findings, timing: Timing | None) -> tuple[Status, str]:
    if plan == findings.chosen:
        return "chosen", _why_chosen(plan, findings)
    if findings.cost_model.verdict(plan) == "NO":
        return "memory", "it does not fit the budget"
    if plan in findings.struck:
        return "struck", findings.struck[plan][0]
    if plan in findings.unchecked:
        return (
            "untried",
            "the guard was not asked: it costs more than this saves, or than planning may cost",
        )
    if timing is None:
        return "untried", _why_untried(plan, findings)
    if timing.failure is not None:
        return ("memory" if timing.lack_of_memory else "failed"), timing.failure
    best = findings.timings.get(findings.chosen)
    if best is None or best.step is None or findings.race is None:
        return "slower", "not needed"
    ratio = findings.race.cost(timing) / findings.race.cost(best)
    return "slower", f"{ratio:.2f}x the chosen one's time" + (
        ", stopped early" if timing.is_stopped else ""
    )


def _why_chosen(plan: Plan, findings: Findings) -> str:
    if plan in findings.passed and findings.race is None:
        return "it fits, and computes what plain eager does"
    if plan in findings.passed:
        return "the fastest that computes what plain eager does"
    if plan in findings.timings:
        failure = findings.timings[plan].failure
        return "the fastest" if failure is None else f"no candidate ran: {failure}"
    return "as given" if findings.origin == "given" else "it needs no measuring"


def _why_untried(plan: Plan, findings: Findings) -> str:
    if findings.predicted:
        return "what it gains is not predicted: only a race tells"
    if findings.race is None:
        return "nothing was measured"
    if plan.compile and findings.race.why_not_compiled is not None:
        return findings.race.why_not_compiled
    return f"the {findings.allowed:.1f} s that planning may cost this run were spent"
