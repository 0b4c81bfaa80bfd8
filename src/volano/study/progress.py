"""The progress of a study on standard error: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from volano.record.format import brief_value, for_terminal, notice_text, seconds_text
from volano.study.observe import RungDecision, StudyInfo, StudyObserver, Summary
from volano.study.study import Study
from volano.terminal import unfailing

_PLAIN_SECONDS = 10.0
_REFRESH_SECONDS = 0.25
# Between answers of workers, which may be minutes apart: so that a person sees that it is alive.
# Drawing takes 2 ms.
_TICK_SECONDS = 1.0


def make_study_progress(stream: TextIO | None = None) -> StudyObserver:
    """A table if ``stream`` (standard error) is a terminal, else plain lines."""
    target = unfailing(sys.stderr if stream is None else stream)
    return RichStudyProgress(target) if target.isatty() else PlainStudyProgress(target)


class _LastHeard:
    """The last summary, and how long ago it came."""

    def __init__(self) -> None:
        self._summary: Summary | None = None
        self._at = 0.0

    def hear(self, summary: Summary) -> None:
        self._summary, self._at = summary, time.perf_counter()

    def now(self) -> Summary | None:
        """The summary with the time that has passed since."""
        if self._summary is None:
            return None
        waited, left = time.perf_counter() - self._at, self._summary.seconds_left
        return dataclasses.replace(
            self._summary,
            seconds=self._summary.seconds + waited,
            seconds_left=None if left is None else max(0.0, left - waited),
        )


class _Ticker:
    """Calls a function again and again from a thread of its own, until it is stopped."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="volano-progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(_TICK_SECONDS):
            self._function()


class PlainStudyProgress(StudyObserver):
    """A line at the start and the end, at each rung, and when ten seconds have passed without
    one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._heard = stream, _LastHeard()
        self._last = time.perf_counter()
        self._ticker = _Ticker(self._stand)

    def on_start(self, info: StudyInfo) -> None:
        self._print(headline(info))
        self._ticker.start()

    def on_trials(self, summary: Summary) -> None:
        self._heard.hear(summary)
        self._stand()

    def on_rung(self, decision: RungDecision) -> None:
        self._print(decided(decision))

    def on_notice(self, text: str) -> None:
        self._print(f"note: {notice_text(text)}")

    def on_end(self, study: Study) -> None:
        self.close()
        self._print(ended(study))

    def close(self) -> None:
        self._ticker.stop()

    def _stand(self) -> None:
        summary = self._heard.now()
        if summary is not None and time.perf_counter() - self._last >= _PLAIN_SECONDS:
            self._print("; ".join((standing(summary), *under_way(summary), time_left(summary))))

    def _print(self, line: str) -> None:
        self._last = time.perf_counter()
        print(for_terminal(line), file=self._stream, flush=True)


class RichStudyProgress(StudyObserver):
    """A table that stays in place: the best so far, how many run, were pruned or failed, pace and
    time left; decisions of rungs and notices stand above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._info: StudyInfo | None = None
        self._heard = _LastHeard()
        self._last = 0.0
        self._console = Console(file=stream, highlight=False, markup=False)
        self._live = Live(
            console=self._console, get_renderable=self._table, auto_refresh=False, transient=True
        )
        self._ticker = _Ticker(self._live.refresh)

    def _say(self, text: str, style: str) -> None:
        self._console.print(for_terminal(text), style=style)

    def on_start(self, info: StudyInfo) -> None:
        self._info = info
        self._say(headline(info), style="bold")
        self._live.start()
        self._ticker.start()

    def on_trials(self, summary: Summary) -> None:
        self._heard.hear(summary)
        now = time.perf_counter()
        if now - self._last >= _REFRESH_SECONDS:
            self._last = now
            self._live.refresh()

    def on_rung(self, decision: RungDecision) -> None:
        self._say(decided(decision), style="dim")

    def on_notice(self, text: str) -> None:
        self._say(f"note: {notice_text(text)}", style="yellow")

    def on_end(self, study: Study) -> None:
        self.close()
        self._say(ended(study), style="bold")

    def close(self) -> None:
        self._ticker.stop()
        self._live.stop()

    def _table(self) -> Any:
        summary = self._heard.now()
        return "" if self._info is None or summary is None else table(self._info, summary)


def headline(info: StudyInfo) -> str:
    """Returns a line on what begins."""
    shares = ", ".join(percent(share) for share in info.shares)
    rungs = f"rungs at {shares} of the run" if len(info.shares) > 1 else "nothing is pruned"
    before = f" ({info.num_before} before)" if info.num_before else ""
    workers = f"{info.num_workers} worker{'s' if info.num_workers > 1 else ''}"
    return (
        f"{info.num_trials} trials{before}, {info.direction} {info.metric}, {info.sampler}, "
        f"{rungs}, {workers}"
    )


def standing(summary: Summary) -> str:
    """Returns how many trials stand at which rung, and the best."""
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
    best = (
        ""
        if summary.best is None
        else f"; best {summary.best.value:.5g} (trial {summary.best.number})"
    )
    return f"{summary.num_asked}/{summary.num_trials} trials: {', '.join(ended)}{best}"


def under_way(summary: Summary) -> list[str]:
    """Returns what the workers do, if anything: a text for a list."""
    parts = [
        f"{count} to {percent(share)} of the run"
        for share, count in sorted(summary.training.items())
    ]
    return [f"training {', '.join(parts)}"] if parts else []


def time_left(summary: Summary) -> str:
    """Returns configuration-steps a second, time spent and left."""
    left = (
        "" if summary.seconds_left is None else f", about {seconds_text(summary.seconds_left)} left"
    )
    rate = f"{summary.steps_per_second:,.0f} configuration-steps/s, " if summary.steps else ""
    return f"{rate}{seconds_text(summary.seconds)}{left}"


def decided(decision: RungDecision) -> str:
    """Returns a line on what a rung has decided."""
    finite = [value for value in decision.values.values() if math.isfinite(value)]
    span = f", values {min(finite):.4g} to {max(finite):.4g}" if finite else ""
    counts = {
        "complete" if decision.share == 1.0 else "continue": len(decision.kept),
        "pruned": len(decision.cut),
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{percent(decision.share)} of the run: {told}{span}"


def ended(study: Study) -> str:
    """Returns a line on how the study ended."""
    num_failed = (study.facts.get("counts") or {}).get("failed") or 0
    failed = (
        f"; {num_failed} {'trials' if num_failed > 1 else 'trial'} failed" if num_failed else ""
    )
    return f"{study.status} after {seconds_text(study.facts.get('seconds') or 0.0)}{failed}"


def table(info: StudyInfo, summary: Summary) -> Any:
    """The live table, for 80 columns and more."""
    from rich.table import Table

    grid = Table(show_header=False, show_edge=False, box=None, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    if summary.best is not None:
        grid.add_row(
            "best", f"{info.metric} {summary.best.value:.5g}  (trial {summary.best.number})"
        )
        grid.add_row("", parameters(summary.best.params))
    grid.add_row("trials", standing(summary).partition(";")[0])
    for text in under_way(summary):
        grid.add_row("now", text)
    grid.add_row("pace", time_left(summary))
    return grid


def parameters(params: Mapping[str, Any]) -> str:
    """Returns the parameters on a line."""
    return "  ".join(f"{name}={brief_value(value)}" for name, value in params.items())


def percent(share: float) -> str:
    """A share of a run."""
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
