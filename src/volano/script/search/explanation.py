"""The explanation of a script: where the time of its steps goes and which plans were tried; its
JSON and its text."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volano.plan import status_text
from volano.record.format import bytes_text, ms_text
from volano.script.plan import ScriptPlan
from volano.script.watch.step_recorder import PARTS

_WIDTH = 80
# As people read the parts.
PART_NAMES = {
    "data": "waiting for data",
    "transfer": "copies to the device",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "read": "reads by the host",
    "rest": "the rest",
}
# Lines of less than this share of a step are not shown, but for waits and reads.
_LEAST_SHARE = 0.02
_MOST_PLACES = 3
_LEAST_STARTUP_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class CodePlace:
    """A line of a script, or the lines between two calls.

    Attributes:
        file: relative to the current folder if it lies there; None if no line of the person's ran.
        line, to_line: the first line and the last.
        seconds: seconds a step.
        count: how often a step.
        note: what is known beside, in words.
    """

    file: str | None
    line: int | None
    to_line: int | None
    seconds: float
    count: float
    note: str = ""

    def in_words(self) -> str:
        """Returns the place as editors read it."""
        if self.file is None:
            return "in libraries"
        has_several = self.to_line is not None and self.to_line != self.line
        return f"{self.file}:{self.line}" + (f"-{self.to_line}" if has_several else "")


@dataclass(frozen=True, kw_only=True)
class StepPart:
    """A part of a step: its name, seconds a step, share of the step, and where it happens, the
    longest first."""

    name: str
    seconds: float
    share: float
    places: tuple[CodePlace, ...]


@dataclass(frozen=True, kw_only=True)
class ScriptCandidate:
    """A plan that was tried.

    Attributes:
        plan: what was done otherwise than the script does it.
        status: "measured", "chosen", "slower" (than needed for it to be proved right), "struck" or
            "failed".
        seconds: seconds a step; None if it was not measured.
        gain: how many times as fast as the script as it is.
        startup_seconds: seconds before the first measured step, more than those of the script.
        reason: why it was struck, or what was compared.
    """

    plan: ScriptPlan
    status: str
    seconds: float | None = None
    gain: float | None = None
    startup_seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ScriptExplanation:
    """The explanation of a script: where its time goes, and which plans were tried.

    Attributes:
        script, arguments: what was run.
        device: the device that it trains on.
        num_steps, num_warmup_steps: steps that were measured, and those left out before them.
        step_seconds: seconds of a step.
        split_step_seconds: seconds of a step while its parts were told apart.
        parts: the parts of a step.
        evaluation_seconds: seconds of evaluation between the measured steps; no part of them.
        peak_bytes: memory at its peak.
        busy_cores: cores that computed on average, loader workers left out.
        kernel_cores: those of them that were in the kernel, which maps memory anew for example.
        facts: what the script does by itself.
        candidates: the plans that were tried, in their order.
        refused: what was not tried, and why.
        chosen: the plan that was chosen; an empty one is the script as it is.
        gain: how many times as fast the chosen plan is.
        advice: what to write, in lines.
        diff: the changes of them that are literal arguments, as a unified diff.
        notices: what else must be known.
    """

    script: str
    arguments: tuple[str, ...]
    device: str
    num_steps: int
    num_warmup_steps: int
    step_seconds: float
    split_step_seconds: float
    parts: tuple[StepPart, ...]
    evaluation_seconds: float = 0.0
    peak_bytes: int | None = None
    busy_cores: float | None = None
    kernel_cores: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[ScriptCandidate, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    chosen: ScriptPlan = field(default_factory=ScriptPlan)
    gain: float = 1.0
    advice: tuple[str, ...] = ()
    diff: str = ""
    notices: tuple[str, ...] = ()

    @property
    def wasted_share(self) -> float:
        """The share of the script's time that the chosen plan saves."""
        return 1.0 - 1.0 / max(1.0, self.gain)

    def part(self, name: str) -> StepPart:
        """Returns a part; one of no seconds if it did not occur."""
        nothing = StepPart(name=name, seconds=0.0, share=0.0, places=())
        return next((part for part in self.parts if part.name == name), nothing)

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON."""
        record = dataclasses.asdict(self)
        record["chosen"] = self.chosen.to_json()
        for candidate, written in zip(self.candidates, record["candidates"], strict=True):
            written["plan"] = candidate.plan.to_json()
        record["refused"] = [{"what": what, "reason": reason} for what, reason in self.refused]
        return record


def explanation_of(
    record: Mapping[str, Any], script: str, arguments: Sequence[str]
) -> ScriptExplanation:
    """Returns the explanation of what was seen of a script, before any candidate."""
    facts = record["facts"]
    step_seconds = record["step_seconds"]
    return ScriptExplanation(
        script=script,
        arguments=tuple(arguments),
        device=facts.get("device", "cpu"),
        num_steps=record["num_steps"],
        num_warmup_steps=record["num_warmup_steps"],
        step_seconds=record["free_step_seconds"] or step_seconds,
        split_step_seconds=step_seconds,
        parts=tuple(_parts(record["parts"], step_seconds, facts)),
        evaluation_seconds=record["evaluation_seconds"],
        peak_bytes=record["peak_bytes"],
        busy_cores=record["busy_cores"],
        kernel_cores=record.get("kernel_cores"),
        facts=facts,
        notices=tuple(_notices(record)),
    )


def _parts(
    charges: Sequence[Mapping[str, Any]], step_seconds: float, facts: Mapping[str, Any]
) -> Iterator[StepPart]:
    for name in PARTS:
        places = [_place(charge, facts) for charge in charges if charge["part"] == name]
        if places:
            seconds = sum(place.seconds for place in places)
            places.sort(key=lambda place: -place.seconds)
            share = seconds / step_seconds if step_seconds else 0.0
            yield StepPart(name=name, seconds=seconds, share=share, places=tuple(places))


def _place(charge: Mapping[str, Any], facts: Mapping[str, Any]) -> CodePlace:
    note = ""
    if charge["part"] == "data":
        note = "; ".join(_loader_in_words(loader) for loader in facts.get("loaders", ()))
    elif charge["part"] == "transfer":
        transfer = facts.get("transfers", {}).get(f"{charge['file']}:{charge['line']}", {})
        note = ", ".join(
            word
            for key, words in (
                ("is_pinned", ("from pageable memory", "from pinned memory")),
                ("non_blocking", ("blocking", "non-blocking")),
            )
            if key in transfer
            for word in [words[transfer[key]]]
        )
    elif charge["part"] == "read" and charge["count"]:
        note = f"{charge['count']:.3g} a step"
    return CodePlace(
        file=_relative(charge["file"]), line=charge["line"], to_line=charge["to_line"],
        seconds=charge["seconds"], count=charge["count"], note=note,
    )  # fmt: skip


def _loader_in_words(loader: Mapping[str, Any]) -> str:
    workers = loader["num_workers"] or "no"
    place = loader.get("dataset_place")
    written = f" ({_relative(place[0])}:{place[1]})" if place else ""
    return f"{loader['dataset']}{written}, {workers} worker{'s' if workers != 1 else ''}"


def _notices(record: Mapping[str, Any]) -> Iterator[str]:
    if record["num_optimizers"] > 1:
        yield (
            f"{record['num_optimizers']} optimizers step; a step here is one of the first of them"
        )
    if record["status"] == "ended":
        yield "the script came to its end while it was watched"


def _relative(file: str | None) -> str | None:
    if file is None or not Path(file).is_relative_to(Path.cwd().resolve()):
        return file
    return os.path.relpath(file, Path.cwd().resolve())


# ---- text


def describe_time(explanation: ScriptExplanation) -> list[str]:
    """Returns where the time goes, as lines of at most 80 columns where names allow it."""
    it = explanation
    lines = [
        f"{it.script}: {ms_text(it.step_seconds)} a step on {it.device}",
        f"  {it.num_steps} steps measured, the first {it.num_warmup_steps} left out",
        "",
    ]
    widest = max(len(name) for name in PART_NAMES.values())
    for part in it.parts:
        bar = "#" * round(30 * part.share)
        figures = f"{ms_text(part.seconds):>10}  {part.share:4.0%}"
        lines.append(f"  {PART_NAMES[part.name]:<{widest}}{figures}  {bar}".rstrip())
        lines += [line for place in shown_places(part, it) for line in _place_lines(place)]
    lines.append("")
    lines += [f"  {line}" for line in _facts(it)]
    return lines


def shown_places(part: StepPart, explanation: ScriptExplanation) -> list[CodePlace]:
    """Returns the places of a part that are worth a line."""
    least = _LEAST_SHARE * explanation.split_step_seconds
    is_wait = part.name in ("data", "transfer", "read")
    return [place for place in part.places[:_MOST_PLACES] if is_wait or place.seconds >= least]


def _place_lines(place: CodePlace) -> list[str]:
    text = f"{place.in_words()}  {ms_text(place.seconds)}"
    text += f"  {place.note}" if place.note else ""
    return textwrap.wrap(
        text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 8, break_on_hyphens=False
    )


def _facts(explanation: ScriptExplanation) -> Iterator[str]:
    if explanation.split_step_seconds > 1.02 * explanation.step_seconds:
        yield f"{ms_text(explanation.split_step_seconds)} a step while its parts are timed"
    if explanation.evaluation_seconds:
        yield f"evaluation in between: {explanation.evaluation_seconds:.1f} s, not counted"
    facts = []
    if explanation.peak_bytes:
        facts.append(f"peak memory {bytes_text(explanation.peak_bytes)}")
    if explanation.busy_cores is not None:
        facts.append(f"{explanation.busy_cores:.1f} of {os.cpu_count()} cores busy")
        if (explanation.kernel_cores or 0.0) >= _LEAST_SHARE:
            facts.append(f"{explanation.kernel_cores:.2f} in the kernel")
    if facts:
        yield ", ".join(facts)


def candidate_line(candidate: ScriptCandidate) -> list[str]:
    """Returns a candidate in lines of at most 80 columns."""
    it = candidate
    figures = ""
    if it.seconds is not None and it.gain is not None:
        figures = f"{ms_text(it.seconds):>9}  {it.gain:5.2f} times as fast"
    words = it.plan.in_words()
    lines = [f"  {words:<40}{figures}".rstrip()]
    if len(words) > 39 and figures:
        lines = [f"  {words}", f"  {'':<40}{figures}"]
    is_measured = it.status in ("measured", "chosen", "slower")
    reason = it.reason if is_measured else f"{status_text(it.status)}: {it.reason}"
    if it.startup_seconds > _LEAST_STARTUP_SECONDS:
        reason += f"; begins {it.startup_seconds:.0f} s later"
    return lines + textwrap.wrap(
        reason, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False
    )


def describe_choice(explanation: ScriptExplanation) -> list[str]:
    """Returns what was chosen and what to write, as lines."""
    it = explanation
    lines = [""]
    if it.chosen.is_empty:
        found = "nothing that was tried is faster and computes the same"
        lines.append(found if it.candidates else "no plan was tried")
    else:
        lines += textwrap.wrap(f"chosen: {it.chosen.in_words()}", _WIDTH)
        lines.append(f"  {it.gain:.2f} times as fast; write:")
        lines += [part for line in it.advice for part in _advice_lines(line)]
    for what, reason in it.refused:
        lines += textwrap.wrap(f"not tried: {what}: {reason}", _WIDTH, subsequent_indent="  ")
    lines += [
        line
        for notice in it.notices
        for line in textwrap.wrap(f"note: {notice}", _WIDTH, subsequent_indent="  ")
    ]
    return lines


def _advice_lines(line: str) -> list[str]:
    return textwrap.wrap(
        line, _WIDTH, initial_indent=" " * 2, subsequent_indent=" " * 6, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip
