"""What the planner found, in words, for the terminal and for a run's page. It reads ``Explanation.to_json()`` alone.

Whatever is not there is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from volano.errors import PlanError
from volano.plan import SEMANTICS, Plan, lever, semantics_of
from volano.record.format import NOTHING, count_text, plain_number, printable, seconds_text
from volano.record.json_values import mapping, number, sequence

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
    "measured": "measured",
}
_VERDICTS = {"NO": "it does not fit", "UNCERTAIN": "it may not fit"}
_UNKNOWN = "not known"  # the class of a knob of a later version
# Knobs that the feed's own measurements decide, before the race: the same in every candidate.
_OF_THE_FEED = frozenset({"feed", "workers", "prefetch"})
_OF_MEMORY = ("peak", "lower", "upper", "operator", "host", "origin")


@dataclass(frozen=True, kw_only=True)
class TimeBar:
    """A figure and how long its bar is; ``percent`` is of the longest, ``share`` of the whole in words, or empty."""

    name: str
    text: str
    percent: float
    share: str = ""


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """A candidate in words. ``predicted`` and ``measured`` are milliseconds a step; ``status`` and ``reason`` say what
    became of it and why."""

    levers: str
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
    """Everything that is shown.

    Attributes:
        task: its name.
        device: and its name, and whether it is here.
        length: steps and examples of a step.
        knobs: the plan in a few words.
        semantics: its widest class.
        origin: how it was found.
        verdict: ``"FITS"``, ``"NO"``, ``"UNCERTAIN"``, or empty.
        verdict_text: the peak, the budget, and where nothing fits what the leanest candidate needs.
        times: of the run under the plan and under plain eager.
        planning_time: of the search.
        gain: in a sentence; empty where either figure is missing.
        knobs: class -> knobs that differ from plain eager, in words.
        usual: names of the others.
        memory: bytes at the peak by category, the largest first.
        memory_origin, memory_facts: how those figures came about; peak, bounds, budget in sentences.
        bounds: the time of a step by what it waits for.
        bounds_origin, bounds_facts: as with memory.
        common: what all candidates have beyond plain eager, in words.
        candidates: in the order of the explanation.
        refused: knob -> pairs of value and reason.
        actual: name, predicted, actual, error of the prediction.
        notices: what a person should know.
    """

    task: str
    device: str
    length: str
    levers: str
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
    refused: Mapping[str, tuple[tuple[str, str], ...]]
    actual: tuple[tuple[str, str, str, str], ...]
    notices: tuple[str, ...]


def read_planning(explanation: Mapping[str, Any]) -> PlanningFigures:
    """An explanation in words."""
    plan, memory, time = (mapping(explanation.get(name)) for name in ("plan", "memory", "time"))
    changed = _changed(plan)
    device, name = str(explanation.get("device") or "?"), str(explanation.get("device_name") or "")
    is_absent = explanation.get("is_present") is False
    candidates = [mapping(candidate) for candidate in sequence(explanation.get("candidates"))]
    common = _common([mapping(candidate.get("plan")) for candidate in candidates])
    return PlanningFigures(
        task=_line(explanation.get("task") or "?"),
        device=_line(" ".join(filter(None, (device, f"({name})" if name not in ("", device) else "")))
                     + (", which is not on this machine" if is_absent else "")),
        length=f"{count_text(explanation.get('num_steps'), 'step')} of "
        f"{count_text(explanation.get('num_examples'), 'example')}",
        levers=_levers(changed, EAGER),
        semantics=_widest(changed),
        origin=ORIGINS.get(str(explanation.get("origin")), str(explanation.get("origin") or "")),
        verdict=str(explanation.get("verdict") or ""),
        verdict_text=_verdict_text(explanation),
        times=_times(explanation),
        planning_time=_whole_seconds(number(explanation.get("planning_seconds")) or 0.0),
        gain=_gain(explanation),
        knobs=_by_class(changed),
        usual=", ".join(name for name in plan if name not in changed and name not in ("schema_version", "device")),
        memory=_memory(memory),
        memory_origin=_FIGURES.get(str(memory.get("origin")), ""),
        memory_facts=tuple(_memory_facts(memory, explanation)),
        bounds=_bars(mapping(time.get("bounds")), ms_text),
        bounds_origin=_FIGURES.get(str(time.get("origin")), ""),
        bounds_facts=tuple(_step_facts(time, number(explanation.get("measured")))),
        common=", ".join(lever(name, value) for name, value in common.items()),
        candidates=tuple(_row(candidate, common) for candidate in candidates),
        refused=_refused(explanation),
        actual=tuple(_actual(mapping(explanation.get("actual")), memory, time)),
        notices=tuple(_line(notice) for notice in sequence(explanation.get("notices"))),
    )  # fmt: skip


def ms_text(seconds: Any) -> str:
    """``0.0412`` -> ``41.2 ms``."""
    return f"{milliseconds(seconds)} ms" if number(seconds) is not None else NOTHING


def milliseconds(seconds: Any) -> str:
    """Three significant digits, no exponent above a microsecond; a dash for nothing."""
    value = number(seconds)
    if value is None:
        return NOTHING
    value *= 1e3
    if value and value < 0.9995:
        return f"{value:.3g}"
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value else 0}f}"


def amount(num_bytes: Any) -> str:
    """Bytes with three significant digits: ``604 MiB``, ``1.18 GiB``."""
    value = number(num_bytes)
    if value is None:
        return NOTHING
    if value < 1024:
        return f"{value:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 999.5 or unit == "TiB":
            break
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {unit}"


def brief_seconds(seconds: Any) -> str:
    """In one unit, for tables: ``340 ms``, ``12.3 s``, ``4.2 min``, ``3.1 h``."""
    value = number(seconds)
    if value is None:
        return NOTHING
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    unit, size = next(((unit, size) for unit, size in (("s", 1), ("min", 60)) if value < 99.95 * size), ("h", 3600))
    return f"{value / size:,.1f} {unit}"


# ---- the headline


def _verdict_text(explanation: Mapping[str, Any]) -> str:
    memory, budget = mapping(explanation.get("memory")), number(explanation.get("budget"))
    peak, needed = number(memory.get("peak")), number(explanation.get("needed"))
    words = ["memory was not predicted" if peak is None else f"{amount(peak)} at the peak"]
    if budget is not None:
        words.append(f"the budget is {amount(budget)}")
    if needed is not None:
        words.append(f"the leanest candidate needs {amount(needed)}")
    return "; ".join(words)


def _times(explanation: Mapping[str, Any]) -> tuple[TimeBar, ...]:
    seconds = mapping(explanation.get("seconds"))
    rows = [
        ("under this plan", number(seconds.get("plan"))),
        (f"under {EAGER}", number(seconds.get("eager"))),
    ]
    longest = max((value or 0.0 for _, value in rows), default=0.0)
    return tuple(
        TimeBar(name=name, text=_whole_seconds(value), percent=_percent(value, longest))
        for name, value in rows
        if value is not None
    )


def _whole_seconds(value: float) -> str:
    return seconds_text(value) if value >= 0.95 else brief_seconds(value)


def _gain(explanation: Mapping[str, Any]) -> str:
    seconds = mapping(explanation.get("seconds"))
    plan, eager = number(seconds.get("plan")), number(seconds.get("eager"))
    if not plan or eager is None:
        return ""
    saved = eager - plan
    if abs(saved) < 0.005 * eager:
        return f"none: as long as {EAGER}"
    if saved > 0:
        return f"{eager / plan:.2f} times as fast as {EAGER}: {_whole_seconds(saved)} saved"
    return f"none: {_whole_seconds(-saved)} longer than {EAGER}"


# ---- knobs


def _changed(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Knobs that differ from plain eager on the same device, or that this version does not know."""
    usual = Plan.baseline(str(plan.get("device") or "cpu")).to_json()
    return {
        str(name): value
        for name, value in plan.items()
        if name != "schema_version" and (name not in usual or value != usual[name])
    }


def _levers(changed: Mapping[str, Any], otherwise: str) -> str:
    return " + ".join(lever(name, value) for name, value in changed.items()) or otherwise


def _class_of(knob: str) -> str:
    try:
        return semantics_of(knob)
    except PlanError:
        return _UNKNOWN


def _widest(changed: Mapping[str, Any]) -> str:
    found = {_class_of(knob) for knob in changed}
    return next((name for name in (_UNKNOWN, *reversed(SEMANTICS)) if name in found), SEMANTICS[0])


def _by_class(changed: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for knob, value in changed.items():
        found.setdefault(_class_of(knob), []).append(f"{knob} {_setting(value)}")
    order = [*SEMANTICS, _UNKNOWN]
    return {name: ", ".join(found[name]) for name in order if name in found}


def _setting(value: Any) -> str:
    """A value of a knob."""
    if value is None or isinstance(value, bool):
        return {None: "as usual", True: "on", False: "off"}[value]
    return _line(value)


# ---- memory and time


def _bars(figures: Mapping[str, Any], text: Any) -> tuple[TimeBar, ...]:
    """The largest first; those of nothing are left out."""
    known = {str(name): value for name, item in figures.items() if (value := number(item))}
    whole, longest = sum(known.values()), max(known.values(), default=0.0)
    ordered = sorted(known.items(), key=lambda item: -item[1])
    return tuple(
        TimeBar(
            name=name.replace("_", " "), text=text(value), percent=_percent(value, longest), share=_share(value, whole)
        )
        for name, value in ordered
    )


def _memory(memory: Mapping[str, Any]) -> tuple[TimeBar, ...]:
    categories = {name: item for name, item in memory.items() if name not in _OF_MEMORY}
    rest = (number(memory.get("peak")) or 0.0) - sum(number(item) or 0.0 for item in categories.values())
    return _bars({**categories, **({"other": rest} if rest > 0 else {})}, amount)


def _memory_facts(memory: Mapping[str, Any], explanation: Mapping[str, Any]) -> Iterator[str]:
    peak, lower, upper = (number(memory.get(name)) for name in ("peak", "lower", "upper"))
    if peak is None:
        return
    operator = _line(memory.get("operator") or "")
    yield f"peak {amount(peak)}" + (f", during {operator}" if operator else "")
    if lower is not None and upper is not None and lower != upper:
        reserve = f": {amount(upper - peak)} of it in reserve" if upper > peak else ""
        yield f"at least {amount(lower)}, at most {amount(upper)}{reserve}"
    budget, most = number(explanation.get("budget")), peak if upper is None else upper
    if budget:
        left = budget - most
        rest = f"{amount(left)} left" if left >= 0 else f"{amount(-left)} too little"
        yield f"budget {amount(budget)}: {_share(most, budget)} used at most, {rest}"
    if number(memory.get("host")):
        yield f"{amount(memory['host'])} more lie in host memory for the device"


def _step_facts(time: Mapping[str, Any], measured: float | None) -> Iterator[str]:
    step, startup = number(time.get("step")), number(time.get("startup"))
    if step is not None:
        text = f"a step of {ms_text(step)} is predicted"
        if measured:
            off = abs(step - measured) / measured
            word = "right" if off < 0.005 else f"{100 * off:.0f} % too {'long' if step > measured else 'short'}"
            text += f", {ms_text(measured)} were measured: the prediction is {word}"
        yield text
    elif measured is not None:
        yield f"a step of {ms_text(measured)} was measured"
    if startup:
        yield f"start-up {brief_seconds(startup)}, paid once"


# ---- candidates


def _common(plans: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Knobs beyond plain eager in which all candidates agree; of a single one, those of the feed."""
    if not plans:
        return {}
    shared = _changed(plans[0])
    if len(plans) == 1:
        return {name: value for name, value in shared.items() if name in _OF_THE_FEED}
    others = [_changed(plan) for plan in plans[1:]]
    return {n: v for n, v in shared.items() if all(n in other and other[n] == v for other in others)}


def _row(candidate: Mapping[str, Any], common: Mapping[str, Any]) -> CandidateRow:
    changed = _changed(mapping(candidate.get("plan")))
    own = {name: value for name, value in changed.items() if name not in common}
    predicted = number(mapping(candidate.get("predicted")).get("step"))
    verdict = str(candidate.get("verdict") or "")
    memory = number(candidate.get("memory_bytes"))
    reasons = [_line(candidate.get("reason") or ""), *_parity(mapping(candidate.get("parity")))]
    if verdict in ("NO", "UNCERTAIN") and candidate.get("status") != "memory":
        reasons.append(_VERDICTS[verdict])
    return CandidateRow(
        levers=_levers(own, EAGER if common.keys() <= _OF_THE_FEED else "nothing more"),
        semantics=str(candidate.get("semantics") or _widest(changed)),
        predicted=milliseconds(number(candidate.get("predicted_seconds")) if predicted is None else predicted),
        measured=milliseconds(candidate.get("measured")),
        startup=brief_seconds(candidate.get("startup")),
        total=brief_seconds(candidate.get("total")),
        memory=NOTHING if memory is None else amount(memory),
        status=str(candidate.get("status") or "?"),
        reason="; ".join(filter(None, reasons)),
    )


def _parity(figures: Mapping[str, Any]) -> list[str]:
    """The guard's figure in words; the others stand in the explanation itself."""
    error, eager = number(figures.get("error")), number(figures.get("eager_error"))
    if error is None:
        return []
    beside = "" if eager is None else f", where {EAGER}'s own is {plain_number(eager)}"
    return [f"its gradients' error is {plain_number(error)}{beside}"]


def _refused(explanation: Mapping[str, Any]) -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for refusal in map(mapping, sequence(explanation.get("refused"))):
        pair = (_setting(refusal.get("value")), _line(refusal.get("reason") or ""))
        found.setdefault(str(refusal.get("knob")), []).append(pair)
    return {knob: tuple(pairs) for knob, pairs in found.items()}


# ---- predicted beside actual


def _actual(
    actual: Mapping[str, Any], memory: Mapping[str, Any], time: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, str]]:
    predicted = {**memory, **mapping(time.get("bounds")), **{n: time.get(n) for n in ("step", "startup")}}
    predicted["memory_bytes"] = memory.get("peak")
    bounds = mapping(time.get("bounds")).keys()
    for name, item in actual.items():
        if name.endswith("_error"):  # of the figures that stand here
            continue
        inner = mapping(item) or {name: item}
        for part, value in inner.items():
            found = number(value)
            expected = number(predicted.get(part))
            is_time = part in ("step", "startup") or (part in bounds and name != "memory")
            is_memory = not is_time and (part.endswith("bytes") or part in memory)
            text = ms_text if is_time else amount if is_memory else plain_number
            title = part if inner is not item else f"{name} {part}"
            yield (
                title.removesuffix("_bytes").replace("_", " "),
                NOTHING if expected is None else text(expected),
                _line(value) if found is None else text(found),
                _error(expected, found) if expected is not None and found else "",
            )


def _error(predicted: float, actual: float) -> str:
    error = 100 * (predicted - actual) / actual
    return f"{error:+.1f} %" if abs(error) >= 0.05 else "0.0 %"


def _percent(value: float | None, longest: float) -> float:
    return round(100 * (value or 0.0) / longest, 2) if longest else 0.0


def _share(value: float, whole: float) -> str:
    share = 100 * value / whole if whole else 0.0
    return f"{share:.0f} %" if share >= 0.95 or not value else "<1 %"


def _line(value: Any) -> str:
    """In one line, without characters that steer a terminal."""
    text = printable(" ".join(str(value).split()))
    return "".join("\ufffd" if 0x7F <= ord(character) < 0xA0 else character for character in text)
