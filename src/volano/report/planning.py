"""Describes the planner's findings in words, for the terminal and for a run's page. Unknown figures
are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from volano.plan import SEMANTICS, Plan, knob_text, semantics_of, status_text
from volano.plan.explanation import Candidate, Explanation
from volano.plan.network import NetworkFigures, NetworkPart
from volano.plan.prediction import MemoryPrediction, TimePrediction
from volano.record.format import (
    NOTHING,
    brief_seconds,
    bytes_text,
    count_text,
    milliseconds,
    ms_text,
    one_line,
    plain_number,
    seconds_text,
)
from volano.record.json_values import mapping, number

EAGER = "plain eager"
ORIGINS = {
    "raced": "candidates raced on this device",
    "predicted": "by prediction; nothing was run",
    "remembered": "remembered from an earlier search",
    "trusted": "choices that need no measuring; the run is too short for a race",
    "given": "given as a whole; nothing was searched",
}
_FIGURES = {
    "prior": "predicted from tables",
    "calibrated": "predicted, calibrated on this device",
    "timed": "predicted, scaled to steps that were timed",
    "measured": "measured",
}
_VERDICTS = {"NO": "it does not fit", "UNCERTAIN": "it may not fit"}
# Knobs that the feed's own measurements decide before the race: they are the same in every
# candidate.
_OF_THE_FEED = frozenset({"feed", "workers", "prefetch"})


@dataclass(frozen=True, kw_only=True)
class TimeBar:
    """A figure and the length of its bar; ``percent`` is of the longest, ``share`` of the whole in
    words, or empty."""

    name: str
    text: str
    percent: float
    share: str = ""


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """A candidate in words. ``predicted`` and ``measured`` are milliseconds a step; ``status`` and
    ``reason`` say what became of it and why."""

    plan: str
    semantics: str
    predicted: str
    measured: str
    startup: str
    total: str
    memory: str
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PlanningFigures:
    """The figures of planning that are shown.

    Attributes:
        task: the task's name.
        device: the device, its name, and whether it is here.
        length: number of steps, and examples of a step.
        plan: the plan in a few words.
        semantics: the plan's widest class.
        origin: how the plan was found.
        verdict: ``"FITS"``, ``"NO"``, ``"UNCERTAIN"``, or empty.
        verdict_text: the peak, the budget, and, if nothing fits, what the leanest candidate needs.
        times: times of the run under the plan and under plain eager.
        planning_time: time of the search.
        gain: the gain in a sentence; empty if either figure is missing.
        knobs: class -> knobs that differ from plain eager, in words.
        usual: names of the other knobs.
        memory: bytes at the peak by category, the largest first.
        memory_origin, memory_facts: how those figures came about; peak, bounds, budget in
            sentences.
        bounds: the time of a step by what it waits for.
        bounds_origin, bounds_facts: the same for the time.
        common: the knobs that all candidates share beyond plain eager, in words.
        candidates: candidates in the order of the explanation.
        accuracy: how far predictions were off over all measured candidates; empty without any.
        refused: knob -> pairs of value and reason.
        actual: rows of name, predicted, actual, error of the prediction.
        notices: notices for the user.
        network: rows of a part of the network, its module, parameters, and how many are trained.
        network_facts: what is frozen, and what keeping it saves, in sentences.
    """

    task: str
    device: str
    length: str
    plan: str
    semantics: str
    origin: str
    verdict: str
    verdict_text: str
    times: tuple[TimeBar, ...]
    planning_time: str
    gain: str
    knobs: Mapping[str, str]
    usual: str
    memory: tuple[TimeBar, ...]
    memory_origin: str
    memory_facts: tuple[str, ...]
    bounds: tuple[TimeBar, ...]
    bounds_origin: str
    bounds_facts: tuple[str, ...]
    common: str
    candidates: tuple[CandidateRow, ...]
    accuracy: str
    refused: Mapping[str, tuple[tuple[str, str], ...]]
    actual: tuple[tuple[str, str, str, str], ...]
    notices: tuple[str, ...]
    network: tuple[tuple[str, ...], ...]
    network_facts: tuple[str, ...]


def read_planning(found: Explanation) -> PlanningFigures:
    """Returns an explanation in words."""
    changed = _changed(found.plan)
    common = _common([candidate.plan for candidate in found.candidates])
    memory, time = found.memory, found.time
    name = f" ({found.device_name})" if found.device_name not in ("", found.device) else ""
    return PlanningFigures(
        task=one_line(found.task or "?"),
        device=one_line(f"{found.device}{name}")
        + ("" if found.is_present else ", which is not on this machine"),
        length=f"{count_text(found.num_steps, 'step')} of "
        f"{count_text(found.num_examples, 'example')}",
        plan=_in_words(changed, EAGER),
        semantics=found.plan.semantics(),
        origin=ORIGINS.get(found.origin, one_line(found.origin)),
        verdict=found.verdict or "",
        verdict_text=_verdict_text(found),
        times=_times(found),
        planning_time=seconds_text(found.planning_seconds),
        gain=_gain(found),
        knobs=_by_class(changed),
        usual=", ".join(n for n in asdict(found.plan) if n not in {*changed, "device"}),
        memory=() if memory is None else _memory(memory),
        memory_origin="" if memory is None else _FIGURES[memory.origin],
        memory_facts=() if memory is None else tuple(_memory_facts(memory, found.budget)),
        bounds=() if time is None else _bars(time.bounds, ms_text),
        bounds_origin="" if time is None else _FIGURES[time.origin],
        bounds_facts=tuple(_step_facts(time, found.measured)),
        common=", ".join(knob_text(name, value) for name, value in common.items()),
        candidates=tuple(_row(candidate, common) for candidate in found.candidates),
        accuracy=_accuracy(found),
        refused=_refused(found),
        actual=tuple(_actual(found.actual or {}, memory, time)),
        notices=tuple(map(one_line, found.notices)),
        network=() if found.network is None else network_rows(found.network.parts),
        network_facts=() if found.network is None else tuple(_network_facts(found.network)),
    )


# ---- the network


def network_rows(parts: Sequence[NetworkPart]) -> tuple[tuple[str, ...], ...]:
    """Returns rows of a part, its module, its parameters and how many are trained; the sum comes
    last."""
    rows = [(one_line(p.name), one_line(p.module), p.parameters, p.trained) for p in parts]
    if len(rows) > 1:
        rows.append(("together", "", sum(row[2] for row in rows), sum(row[3] for row in rows)))
    return tuple(
        (name, module, f"{parameters:,}", _trained(parameters, trained))
        for name, module, parameters, trained in rows
    )


def _trained(parameters: int, trained: int) -> str:
    return "all" if trained == parameters else f"{trained:,}" if trained else "frozen"


def _network_facts(network: NetworkFigures) -> Iterator[str]:
    if network.frozen:
        yield one_line(network.frozen)
    if network.saved_seconds is not None:
        how = "measured steps" if network.is_measured else "a few examples"
        yield f"that saves {seconds_text(network.saved_seconds)} of the run, predicted from {how}"


# ---- the headline


def _verdict_text(found: Explanation) -> str:
    words = [
        "memory was not predicted"
        if found.memory is None
        else f"{bytes_text(found.memory.peak)} at the peak"
    ]
    if found.budget is not None:
        words.append(f"the budget is {bytes_text(found.budget)}")
    if found.needed is not None:
        words.append(f"the leanest candidate needs {bytes_text(found.needed)}")
    return "; ".join(words)


def _times(found: Explanation) -> tuple[TimeBar, ...]:
    rows = [
        ("under this plan", found.seconds.get("plan")),
        (f"under {EAGER}", found.seconds.get("eager")),
    ]
    known = [(name, value) for name, value in rows if value is not None]
    longest = max((value for _, value in known), default=0.0)
    return tuple(
        TimeBar(name=name, text=seconds_text(value), percent=_percent(value, longest))
        for name, value in known
    )


def _gain(found: Explanation) -> str:
    plan, eager = found.seconds.get("plan"), found.seconds.get("eager")
    if not plan or eager is None:
        return ""
    plan += found.planning_seconds if _counts_planning(found) else 0.0
    saved = eager - plan
    if abs(saved) < 0.005 * eager:
        return f"none: as long as {EAGER}"
    if saved > 0:
        text = f"{seconds_text(saved)} saved{_net(found)}"
        return f"{eager / plan:.2f} times as fast as {EAGER}: {text}"
    return f"none: {seconds_text(-saved)} longer than {EAGER}{_net(found)}"


def _counts_planning(found: Explanation) -> bool:
    """Checks whether a run pays what this search took: not one of which nothing ran, here or on
    another device."""
    return found.is_present and found.origin != "predicted"


def _net(found: Explanation) -> str:
    return ", planning counted" if _counts_planning(found) else ", planning not counted"


# ---- knobs


def _changed(plan: Plan) -> dict[str, Any]:
    """Returns the knobs that differ from plain eager on the same device."""
    return {name: value for name, (_, value) in Plan.baseline(plan.device).changes(plan).items()}


def _in_words(changed: Mapping[str, Any], otherwise: str) -> str:
    return " + ".join(knob_text(name, value) for name, value in changed.items()) or otherwise


def _by_class(changed: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for knob, value in changed.items():
        found.setdefault(semantics_of(knob), []).append(f"{knob} {_setting(value)}")
    return {name: ", ".join(found[name]) for name in SEMANTICS if name in found}


def _setting(value: Any) -> str:
    """Returns a value of a knob in words."""
    if value is None or isinstance(value, bool):
        return {None: "as usual", True: "on", False: "off"}[value]
    return one_line(value)


# ---- memory and time


def _bars(figures: Mapping[str, float], text: Callable[[float], str]) -> tuple[TimeBar, ...]:
    """Returns the bars, the largest first; empty ones are left out."""
    known = {name: value for name, value in figures.items() if value}
    whole, longest = sum(known.values()), max(known.values(), default=0.0)
    return tuple(
        TimeBar(
            name=one_line(name).replace("_", " "),
            text=text(value),
            percent=_percent(value, longest),
            share=_share(value, whole),
        )
        for name, value in sorted(known.items(), key=lambda item: -item[1])
    )


def _memory(memory: MemoryPrediction) -> tuple[TimeBar, ...]:
    rest = memory.peak - sum(memory.categories.values())
    return _bars({**memory.categories, **({"other": rest} if rest > 0 else {})}, bytes_text)


def _memory_facts(memory: MemoryPrediction, budget: int | None) -> Iterator[str]:
    operator = one_line(memory.operator)
    yield f"peak {bytes_text(memory.peak)}" + (f", during {operator}" if operator else "")
    if memory.lower != memory.upper:
        over = memory.upper - memory.peak
        reserve = f", of which {bytes_text(over)} are reserve" if over > 0 else ""
        yield f"at least {bytes_text(memory.lower)}, at most {bytes_text(memory.upper)}{reserve}"
    if budget:
        left = budget - memory.upper
        rest = f"{bytes_text(left)} left" if left >= 0 else f"{bytes_text(-left)} too little"
        yield f"budget {bytes_text(budget)}: {_share(memory.upper, budget)} used at most, {rest}"
    if memory.host:
        yield f"{bytes_text(memory.host)} more lie in host memory for the device"


def _step_facts(time: TimePrediction | None, measured: float | None) -> Iterator[str]:
    if time is not None:
        text = f"a step of {ms_text(time.step)} is predicted"
        if measured:
            off = abs(time.step - measured) / measured
            word = (
                "right"
                if off < 0.005
                else f"{100 * off:.0f} % too {'long' if time.step > measured else 'short'}"
            )
            text += f", {ms_text(measured)} were measured: the prediction is {word}"
        yield text
        if time.startup:
            yield f"start-up {brief_seconds(time.startup)}, paid once"
    elif measured is not None:
        yield f"a step of {ms_text(measured)} was measured"


# ---- candidates


def _common(plans: Sequence[Plan]) -> dict[str, Any]:
    """Returns the knobs beyond plain eager in which all candidates agree; for a single candidate,
    those of the feed."""
    if not plans:
        return {}
    shared = _changed(plans[0])
    if len(plans) == 1:
        return {name: value for name, value in shared.items() if name in _OF_THE_FEED}
    others = [_changed(plan) for plan in plans[1:]]
    return {
        n: v for n, v in shared.items() if all(n in other and other[n] == v for other in others)
    }


def _row(candidate: Candidate, common: Mapping[str, Any]) -> CandidateRow:
    own = {name: value for name, value in _changed(candidate.plan).items() if name not in common}
    reasons = [one_line(candidate.reason), *_parity(candidate.parity)]
    if candidate.verdict in _VERDICTS and candidate.status != "memory":
        reasons.append(_VERDICTS[candidate.verdict])
    return CandidateRow(
        plan=_in_words(own, EAGER if common.keys() <= _OF_THE_FEED else "nothing more"),
        semantics=candidate.semantics,
        predicted=milliseconds(None if candidate.predicted is None else candidate.predicted.step),
        measured=milliseconds(candidate.measured),
        startup=brief_seconds(candidate.startup),
        total=brief_seconds(candidate.total),
        memory=bytes_text(candidate.memory_bytes),
        status=status_text(candidate.status),
        reason="; ".join(filter(None, reasons)),
    )


def _accuracy(found: Explanation) -> str:
    off = found.prediction_error
    if off is None:
        return ""
    return (
        f"predictions, made before the race, were off by {100 * off['median']:.0f} % in the "
        f"median and by a factor of {off['worst_factor']:.2f} at worst, over "
        f"{count_text(off['num_candidates'], 'candidate')}"
    )


def _parity(figures: Mapping[str, float]) -> list[str]:
    """Returns the guard's figure in words; the others stand in the explanation itself."""
    error, eager = number(figures.get("error")), number(figures.get("eager_error"))
    if error is None:
        return []
    beside = "" if eager is None else f"; {EAGER}'s own is {plain_number(eager)}"
    return [f"its gradients' error is {plain_number(error)}{beside}"]


def _refused(found: Explanation) -> dict[str, tuple[tuple[str, str], ...]]:
    rows: dict[str, list[tuple[str, str]]] = {}
    for refusal in found.refused:
        rows.setdefault(one_line(refusal.knob), []).append(
            (_setting(refusal.value), one_line(refusal.reason))
        )
    return {knob: tuple(pairs) for knob, pairs in rows.items()}


# ---- predicted and actual


def _actual(
    actual: Mapping[str, Any], memory: MemoryPrediction | None, time: TimePrediction | None
) -> Iterator[tuple[str, str, str, str]]:
    bytes_of = {} if memory is None else {**memory.categories, "memory_bytes": memory.peak}
    if memory is not None:
        bytes_of |= {name: getattr(memory, name) for name in ("peak", "lower", "upper", "host")}
    bounds = {} if time is None else time.bounds
    times = {} if time is None else {"step": time.step, "startup": time.startup}
    predicted = {**bytes_of, **bounds, **times}
    for name, item in actual.items():
        if name.endswith("_error"):  # of the figures that are shown here
            continue
        inner = mapping(item) or {name: item}
        for part, value in inner.items():
            found, expected = number(value), predicted.get(part)
            is_time = part in ("step", "startup") or (part in bounds and name != "memory")
            is_memory = not is_time and (part.endswith("bytes") or part in bytes_of)
            text = ms_text if is_time else bytes_text if is_memory else plain_number
            title = part if inner is not item else f"{name} {part}"
            yield (
                one_line(title.removesuffix("_bytes").replace("_", " ")),
                NOTHING if expected is None else text(expected),
                one_line(value) if found is None else text(found),
                _error(expected, found) if expected is not None and found else "",
            )


def _error(predicted: float, actual: float) -> str:
    error = 100 * (predicted - actual) / actual
    return f"{error:+.1f} %" if abs(error) >= 0.05 else "0.0 %"


def _percent(value: float, longest: float) -> float:
    return round(100 * value / longest, 2) if longest else 0.0


def _share(value: float, whole: float) -> str:
    share = 100 * value / whole if whole else 0.0
    return f"{share:.0f} %" if share >= 0.95 or not value else "<1 %"
