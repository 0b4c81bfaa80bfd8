"""The page of a script's explanation: where a step's time goes, what was tried, what to write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from volano.plan import status_text
from volano.record.files import check_out
from volano.record.format import NOTHING, bytes_text, ms_text, one_line, printable
from volano.report.page import render, save_page
from volano.script.search.explanation import (
    PART_NAMES,
    ScriptCandidate,
    ScriptExplanation,
    StepPart,
    shown_places,
)


def write_script_page(explanation: ScriptExplanation, out: Path) -> Path:
    """Writes the page of a script's explanation, and returns its path.

    Raises:
        UsageError: the path is no place for a file.
        RunError: the page cannot be written.
    """
    check_out(out)
    return save_page(render_script_page(explanation), out)


def render_script_page(explanation: ScriptExplanation) -> str:
    """Returns the page as HTML; everything that it shows stands in it."""
    it = explanation
    return render(
        "script.html.j2",
        name=one_line(" ".join((it.script, *it.arguments))),
        verdict=_verdict(it),
        is_faster=not it.chosen.is_empty,
        tiles=list(_tiles(it)),
        facts=list(_facts(it)),
        parts_of_step=[_bar(part, it) for part in it.parts],
        places=list(_places(it)),
        advice=[one_line(line) for line in it.advice],
        diff=printable(it.diff),
        candidates=[_row(candidate) for candidate in it.candidates],
        refused=[(one_line(what), one_line(reason)) for what, reason in it.refused],
        notices=[one_line(notice) for notice in it.notices],
    )


def _verdict(it: ScriptExplanation) -> str:
    if it.chosen.is_empty:
        if not it.candidates:
            return "No plan was tried: the notices say why."
        return "Nothing that was tried is faster and computes the same."
    return f"{it.gain:.2f} times as fast with {one_line(it.chosen.in_words())}."


def _tiles(it: ScriptExplanation) -> Iterator[tuple[str, str, str]]:
    yield "A step as it is", ms_text(it.step_seconds), f"on {it.device}"
    chosen = next((one for one in it.candidates if one.status == "chosen"), None)
    if chosen is not None and chosen.seconds is not None:
        yield "A step under the plan", ms_text(chosen.seconds), f"{it.gain:.2f} times as fast"
    longest = max(it.parts, key=lambda part: part.share, default=None)
    if longest is not None:
        yield "Longest part", f"{longest.share:.0%}", PART_NAMES[longest.name]
    if it.peak_bytes:
        yield "Memory at its peak", bytes_text(it.peak_bytes), ""
    elif it.busy_cores is not None:
        yield "Cores busy", f"{it.busy_cores:.1f}", f"of {os.cpu_count()}"


def _facts(it: ScriptExplanation) -> Iterator[tuple[str, str]]:
    yield "steps", f"{it.num_steps} measured, the first {it.num_warmup_steps} left out"
    if it.evaluation_seconds:
        yield "evaluation in between", f"{it.evaluation_seconds:.1f} s, not counted"
    if it.split_step_seconds > 1.02 * it.step_seconds:
        yield "a step while its parts are timed", ms_text(it.split_step_seconds)
    if it.peak_bytes and it.busy_cores is not None:
        yield "cores busy", f"{it.busy_cores:.1f} of {os.cpu_count()}"
    model = it.facts.get("model")
    if model:
        yield "model", f"{one_line(model)}, {it.facts.get('num_parameters', 0):,} parameters"


def _bar(part: StepPart, it: ScriptExplanation) -> dict[str, Any]:
    longest = max(part.seconds for part in it.parts) or 1.0
    return {
        "name": PART_NAMES[part.name],
        "text": f"{ms_text(part.seconds)} ({part.share:.0%})",
        "percent": round(100 * part.seconds / longest, 2),
    }


def _places(it: ScriptExplanation) -> Iterator[tuple[str, str, str, str, str]]:
    for part in it.parts:
        for place in shown_places(part, it):
            name, note = PART_NAMES[part.name], one_line(place.note)
            yield name, one_line(place.in_words()), ms_text(place.seconds), note, part.name


def _row(candidate: ScriptCandidate) -> dict[str, str]:
    it = candidate
    return {
        "plan": one_line(it.plan.in_words()),
        "semantics": it.plan.semantics(),
        "seconds": NOTHING if it.seconds is None else ms_text(it.seconds),
        "gain": NOTHING if it.gain is None else f"{it.gain:.2f}",
        "startup": f"{it.startup_seconds:.1f} s" if it.startup_seconds > 0 else NOTHING,
        "status": status_text(it.status),
        "reason": one_line(it.reason),
    }
