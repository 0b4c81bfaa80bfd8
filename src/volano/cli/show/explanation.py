"""An explanation on the terminal: at most 100 columns, whole at 80, and the same without colours or
in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from volano.record.format import NOTHING, notice_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.segment import Segment, Segments
    from rich.text import Text

    from volano.plan.explanation import Explanation
    from volano.report.planning import PlanningFigures, TimeBar

MOST_COLUMNS = 100
# Narrower terminals wrap by themselves; figures would stand letter under letter.
_FEWEST_COLUMNS = 72
_INDENT = 2
_VERDICTS = {"FITS": "bold green", "NO": "bold red", "UNCERTAIN": "bold yellow"}
_STATUSES = {"chosen": "bold green", "rejected": "red", "failed": "red", "too large": "yellow"}
_CLASSES = {"exact": "green", "rounding": "blue", "precision": "yellow"}
_FIGURES = ("predicted", "measured", "start-up", "whole run", "memory")


def print_explanation(
    explanation: Explanation,
    *,
    file: TextIO | None = None,
    width: int | None = None,
    sections: Iterable[str] | None = None,
) -> None:
    """Prints an explanation for a person, on standard output if not said otherwise.

    Args:
        explanation: fresh, remembered, or read from a run's folder.
        file: the stream to print to.
        width: columns; None is the terminal's, at most 100.
        sections: names of :data:`SECTIONS`; None is all.
    """
    console = _console(file, width)
    print_parts(render(explanation, console, sections=sections), console)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """A table as wide as explanations are; what does not fit wraps, but for the first column and
    ``right``, those of numbers."""
    from rich.table import Table

    console = _console(None, None)
    page = _Page(console)
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for number in range(len(columns)):
        table.add_column(
            justify="right" if number in right else "left",
            no_wrap=number in (0, *right),
            overflow="fold",
        )
    table.add_row(*(page.text(name, "dim") for name in columns))
    for row in rows:
        table.add_row(*map(page.text, row))
    print_parts([table], console)


def _console(file: TextIO | None, width: int | None) -> Console:
    from rich.console import Console

    console = Console(file=file or sys.stdout, highlight=False, markup=False, emoji=False)
    # Into a file or a pipe: as wide as it may be, unless the environment says otherwise.
    found = width or (
        console.width if console.is_terminal or "COLUMNS" in os.environ else MOST_COLUMNS
    )
    console.width = max(_FEWEST_COLUMNS, min(found, MOST_COLUMNS))
    return console


def print_parts(parts: Iterable[RenderableType], console: Console) -> None:
    """Prints without blanks at the ends of lines."""
    for part in parts:
        for line in console.render_lines(part, pad=False):
            console.print(_trimmed(line), end="", soft_wrap=True)


def _trimmed(line: list[Segment]) -> Segments:
    """A line without the blanks at its end, and with its end."""
    from rich.segment import Segment, Segments

    while line and not line[-1].text.strip():
        line = line[:-1]
    if line:
        last = line[-1]
        line = [*line[:-1], Segment(last.text.rstrip(), last.style)]
    return Segments([*line, Segment.line()])


def render(
    explanation: Explanation, console: Console, *, sections: Iterable[str] | None = None
) -> Iterator[RenderableType]:
    """Returns what is shown, from top to bottom: everything, or the named ones of
    :data:`SECTIONS`."""
    from volano.report.planning import read_planning

    page = _Page(console)
    planning = read_planning(explanation)
    for name in SECTIONS if sections is None else sections:
        yield from SECTIONS[name](planning, page)


class _Page:
    """The page: what the console can show, and pieces that several sections share.

    Args:
        console: the console of a fixed width.
    """

    def __init__(self, console: Console) -> None:
        self.width = console.width
        self._is_ascii = console.options.ascii_only
        self._encoding = console.encoding

    def text(self, words: str, style: str = "") -> Text:
        """Returns words as they are, but for what the output's encoding lacks."""
        from rich.text import Text

        if self._is_ascii:
            words = (
                words.replace("\N{EM DASH}", "-")
                .encode(self._encoding, "replace")
                .decode(self._encoding)
            )
        # A style of these words, not of what is appended.
        return Text(overflow="fold").append(words, style)

    def bar(self, percent: float, most: int) -> Text:
        """A bar of up to ``most`` columns, in eighths of one."""
        if self._is_ascii:
            return self.text("#" * max(1 if percent else 0, round(most * percent / 100)), "cyan")
        eighths = max(1 if percent else 0, round(8 * most * percent / 100))
        return self.text(
            "\N{FULL BLOCK}" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), "cyan"
        )

    def heading(self, title: str, beside: str = "") -> Iterator[RenderableType]:
        """A blank line, the title, and softly what belongs to all of the section."""
        yield ""
        words = self.text(title, "bold")
        if beside:
            words.append_text(self.text(f"  {beside}", "dim"))
        yield words

    def inset(self, part: RenderableType, by: int = _INDENT) -> RenderableType:
        """Moves content to the right; lines that wrap stay there."""
        from rich.padding import Padding

        return Padding(part, (0, 0, 0, by))

    def grid(self, rows: Iterable[Sequence[Text]], right: Sequence[int] = ()) -> RenderableType:
        """Returns columns as wide as they need to be, of which the last wraps; ``right`` are
        columns of numbers."""
        from rich.table import Table

        rows = list(rows)
        table = Table.grid(padding=(0, 2), pad_edge=False)
        last = max(map(len, rows)) - 1
        for number in range(last + 1):
            justify = "right" if number in right else "left"
            table.add_column(justify=justify, no_wrap=number < last, overflow="fold")
        for row in rows:
            table.add_row(*row)
        return self.inset(table)

    def bars(self, bars: Sequence[TimeBar]) -> RenderableType:
        """Returns figures with their bars."""
        from rich.cells import cell_len

        taken = sum(
            max(map(cell_len, words)) + 2
            for words in ([b.name for b in bars], [b.text for b in bars])
        )
        shares = max(len(bar.share) for bar in bars)
        room = self.width - _INDENT - taken - (shares + 2 if shares else 0)
        most = max(8, min(40, room))
        rows = []
        for bar in bars:
            share = [self.text(bar.share, "dim")] if shares else []
            rows.append(
                [self.text(bar.name), self.text(bar.text), *share, self.bar(bar.percent, most)]
            )
        return self.grid(rows, right=(1, 2) if shares else (1,))


# ---- sections


def _headline(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    yield page.text("Plan of ", "bold").append_text(page.text(planning.task, "bold"))
    yield page.inset(page.text(f"on {planning.device}, {planning.length}", "dim"))
    yield ""
    yield page.inset(page.text(planning.plan, "bold cyan"))
    facts = [("found", page.text(planning.origin)), ("numbers", _class(planning, page))]
    facts += [("memory", _verdict(planning, page)), ("gain", page.text(planning.gain))]
    facts.append(("planning", page.text(f"took {planning.planning_time}")))
    yield page.grid([(page.text(name, "dim"), words) for name, words in facts if words.plain])
    if planning.times:
        yield ""
        yield page.bars(planning.times)


def _verdict(planning: PlanningFigures, page: _Page) -> Text:
    if not planning.verdict:
        return page.text(planning.verdict_text)
    words = page.text(planning.verdict, _VERDICTS.get(planning.verdict, "bold"))
    return words.append_text(page.text(f"  {planning.verdict_text}"))


def _class(planning: PlanningFigures, page: _Page) -> Text:
    promises = {
        "exact": "bitwise those of plain eager",
        "rounding": "the same mathematics, rounded differently",
        "precision": "arithmetic in a narrower type",
    }
    words = page.text(planning.semantics, _CLASSES.get(planning.semantics, ""))
    if not planning.device.startswith("cpu"):
        # There two equal runs differ in the last digits already.
        promises["exact"] = "those of plain eager, as equal as two runs of it"
    promise = promises.get(planning.semantics)
    return words.append_text(page.text(f"  {promise}")) if promise else words


def _network(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    if planning.network:
        yield from page.heading("Network", "parameters by part, and how many of them are trained")
        yield page.grid(
            [[*map(page.text, (name, count, trained, module))]
             for name, module, count, trained in planning.network],
            right=(1, 2),
        )  # fmt: skip
        yield from (page.inset(page.text(fact)) for fact in planning.network_facts)


def _knobs(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    yield from page.heading(
        "Knobs", "that differ from plain eager, by what they may do to the numbers"
    )
    rows = [
        (page.text(name, _CLASSES.get(name, "")), page.text(words))
        for name, words in planning.knobs.items()
    ]
    if planning.usual:
        rows.append((page.text("as usual", "dim"), page.text(planning.usual, "dim")))
    if rows:
        yield page.grid(rows)


def _memory(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    if planning.memory or planning.memory_facts:
        yield from page.heading("Memory at its peak", planning.memory_origin)
        if planning.memory:
            yield page.bars(planning.memory)
        yield from (page.inset(page.text(fact)) for fact in planning.memory_facts)


def _time(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    if planning.bounds or planning.bounds_facts:
        title = "Time of a step, by what limits it" if planning.bounds else "Time of a step"
        yield from page.heading(title, planning.bounds_origin)
        if planning.bounds:
            yield page.bars(planning.bounds)
        yield from (page.inset(page.text(fact)) for fact in planning.bounds_facts)


def _actual(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    if planning.actual:
        yield from page.heading("Predicted and actual", "the error is that of the prediction")
        head = [page.text(name, "dim") for name in ("", "predicted", "actual", "error")]
        yield page.grid(
            [head, *([*map(page.text, row)] for row in planning.actual)], right=(1, 2, 3)
        )


def _candidates(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    rows = planning.candidates
    if not rows:
        return
    cells = [(row.predicted, row.measured, row.startup, row.total, row.memory) for row in rows]
    has_figures = any(word != NOTHING for words in cells for word in words)
    beside = "predicted and measured in ms a step" if has_figures else "nothing was measured"
    yield from page.heading(f"Candidates ({len(rows)})", beside)
    if planning.common:
        yield page.inset(page.text(f"all of them: {planning.common}", "dim"))
    head = _FIGURES if has_figures else ()
    cells = [words[: len(head)] for words in cells]
    widths = [
        max(len(name), *(len(row[number]) for row in cells)) for number, name in enumerate(head)
    ]
    if head:
        names = [page.text(name, "dim") for name in head]
        yield _candidate_line(page, page.text(""), names, widths)
    for row, figures in zip(rows, cells, strict=True):
        style = _STATUSES.get(row.status, "")
        name = page.text(row.plan, "bold" if row.status == "chosen" else "")
        yield _candidate_line(page, name, [page.text(words) for words in figures], widths)
        words = page.text(row.status, style).append_text(page.text(f" ({row.semantics})", "dim"))
        if row.reason:
            words.append_text(page.text(f"  {row.reason}"))
        yield page.inset(words, 2 * _INDENT)
    if planning.accuracy:
        yield page.inset(page.text(planning.accuracy, "dim"))


def _candidate_line(
    page: _Page, name: Text, figures: Sequence[Text], widths: Sequence[int]
) -> RenderableType:
    """Returns a candidate's line, a table of its own with columns as wide as in the others: what
    became of it stands between."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(width=page.width - _INDENT - 2 * len(widths) - sum(widths), overflow="fold")
    for width in widths:
        table.add_column(width=width, justify="right", no_wrap=True)
    table.add_row(name, *figures)
    return page.inset(table)


def _refused(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    if planning.refused:
        yield from page.heading("Not among the candidates")
        rows = []
        for knob, pairs in planning.refused.items():
            for number, (value, reason) in enumerate(pairs):
                rows.append(
                    (page.text("" if number else knob), page.text(value), page.text(reason))
                )
        yield page.grid(rows)


def _notices(planning: PlanningFigures, page: _Page) -> Iterator[RenderableType]:
    if planning.notices:
        yield from page.heading("Notices")
        yield page.grid([(page.text("-"), page.text(notice_text(one))) for one in planning.notices])


SECTIONS: dict[str, Callable[[PlanningFigures, _Page], Iterator[RenderableType]]] = {
    "headline": _headline,
    "network": _network,
    "knobs": _knobs,
    "memory": _memory,
    "time": _time,
    "actual": _actual,
    "candidates": _candidates,
    "refused": _refused,
    "notices": _notices,
}
