"""What a person sees while a study goes on, on standard error: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from volano.exploring.observe import RungDecision, StudyInfo, StudyObserver, Summary
from volano.exploring.study import Study

_PLAIN_SECONDS = 10.0
_REFRESH_SECONDS = 0.25


def make_study_progress(stream: TextIO | None = None) -> StudyObserver:
    """A table where ``stream`` (standard error) is a terminal, plain lines where it is not."""
    target: TextIO = sys.stderr if stream is None else stream
    return RichStudyProgress(target) if target.isatty() else PlainStudyProgress(target)


class PlainStudyProgress(StudyObserver):
    """A line at the start and the end, at each rung, and every ten seconds between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, 0.0

    def on_start(self, info: StudyInfo) -> None:
        """See :class:`StudyObserver`."""
        self._last = time.perf_counter()
        self._print(headline(info))

    def on_trials(self, summary: Summary) -> None:
        """See :class:`StudyObserver`."""
        if time.perf_counter() - self._last >= _PLAIN_SECONDS:
            self._last = time.perf_counter()
            self._print(f"{standing(summary)}; {pace(summary)}")

    def on_rung(self, decision: RungDecision) -> None:
        """See :class:`StudyObserver`."""
        self._print(decided(decision))

    def on_notice(self, text: str) -> None:
        """See :class:`StudyObserver`."""
        self._print(f"note: {text}")

    def on_end(self, study: Study) -> None:
        """See :class:`StudyObserver`."""
        self._print(f"{study.status} after {clock(study.facts.get('seconds') or 0.0)}")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class RichStudyProgress(StudyObserver):
    """A table that stays in place: the best so far, how many run, were pruned or failed, pace and time left; decisions
    of rungs and notices stand above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False, markup=False)
        # A refreshing thread would take the interpreter from the training.
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._info: StudyInfo | None = None
        self._last = 0.0

    def on_start(self, info: StudyInfo) -> None:
        """See :class:`StudyObserver`."""
        self._info = info
        self._console.print(headline(info), style="bold")
        self._live.start()

    def on_trials(self, summary: Summary) -> None:
        """See :class:`StudyObserver`."""
        now = time.perf_counter()
        if self._info is not None and now - self._last >= _REFRESH_SECONDS:
            self._last = now
            self._live.update(table(self._info, summary), refresh=True)

    def on_rung(self, decision: RungDecision) -> None:
        """See :class:`StudyObserver`."""
        self._console.print(decided(decision), style="dim")

    def on_notice(self, text: str) -> None:
        """See :class:`StudyObserver`."""
        self._console.print(f"note: {text}", style="yellow")

    def on_end(self, study: Study) -> None:
        """See :class:`StudyObserver`."""
        self.close()
        self._console.print(f"{study.status} after {clock(study.facts.get('seconds') or 0.0)}", style="bold")

    def close(self) -> None:
        """See :class:`StudyObserver`."""
        self._live.stop()


def headline(info: StudyInfo) -> str:
    """What begins."""
    shares = ", ".join(f"{share:.0%}" if share >= 0.01 else f"{share:.1%}" for share in info.shares)
    rungs = f"rungs at {shares} of the run" if len(info.shares) > 1 else "nothing is pruned"
    before = f" ({info.num_before} before)" if info.num_before else ""
    workers = f"{info.num_workers} worker{'s' if info.num_workers > 1 else ''}"
    return f"{info.num_trials} trials{before}, {info.direction} {info.metric}, {info.sampler}, {rungs}, {workers}"


def standing(summary: Summary) -> str:
    """How many stand where, and the best."""
    ended = [
        f"{count} {word}"
        for count, word in (
            (summary.num_running, "running"),
            (summary.num_complete, "complete"),
            (summary.num_pruned, "pruned"),
            (summary.num_failed, "failed"),
        )
        if count or word == "running"
    ]
    best = "" if summary.best is None else f"; best {summary.best.value:.5g} (trial {summary.best.number})"
    return f"{summary.num_asked}/{summary.num_trials} trials: {', '.join(ended)}{best}"


def pace(summary: Summary) -> str:
    """Configuration-steps a second, time spent and left."""
    left = "" if summary.seconds_left is None else f", {clock(summary.seconds_left)} left"
    return f"{summary.steps_per_second:,.0f} configuration-steps/s, {clock(summary.seconds)}{left}"


def decided(decision: RungDecision) -> str:
    """What a rung has done."""
    finite = [value for value in decision.values.values() if math.isfinite(value)]
    span = f", values {min(finite):.4g} to {max(finite):.4g}" if finite else ""
    if not decision.cut:
        return f"{decision.share:.0%} of the run: {len(decision.kept)} go on{span}"
    return f"{decision.share:.0%} of the run: {len(decision.kept)} go on, {len(decision.cut)} are pruned{span}"


def table(info: StudyInfo, summary: Summary) -> Any:
    """The live table, for 80 columns and more."""
    from rich.table import Table

    grid = Table(show_header=False, show_edge=False, box=None, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    if summary.best is not None:
        grid.add_row("best", f"{info.metric} {summary.best.value:.5g}  (trial {summary.best.number})")
        grid.add_row("", parameters(summary.best.params))
    grid.add_row("trials", standing(summary).partition(";")[0])
    grid.add_row("pace", pace(summary))
    return grid


def parameters(params: Mapping[str, Any]) -> str:
    """Parameters on a line."""
    return "  ".join(f"{name}={word(value)}" for name, value in params.items())


def word(value: Any) -> str:
    """A value as short as it can be told."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
