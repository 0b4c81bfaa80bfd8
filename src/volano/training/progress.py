"""The progress of a run on standard error: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
import time
from typing import Any, TextIO

from volano.record.format import count_text, for_terminal, notice_text
from volano.terminal import unfailing
from volano.training.observe import Observer, StartInfo

_PLAIN_SECONDS = 10.0
_REFRESH_SECONDS = 0.2
_PREVIEW_WIDTH = 200  # characters of a preview that are shown; previews.jsonl has all


def make_progress(stream: TextIO | None = None) -> Observer:
    """A bar if ``stream`` (standard error) is a terminal, else plain lines."""
    target = unfailing(sys.stderr if stream is None else stream)
    return RichProgress(target) if target.isatty() else PlainProgress(target)


class _Progress(Observer):
    """The part that both kinds of progress share: what is said, and when."""

    _refresh_seconds: float

    def __init__(self) -> None:
        self._pace = _Pace()
        self._last = 0.0

    def _say(self, text: str, style: str | None = None) -> None:
        raise NotImplementedError

    def on_phase(self, text: str) -> None:
        """Says what begins."""
        self._say(f"{text} ...", "dim")

    def on_candidate(self, text: str) -> None:
        """Says what came of a candidate."""
        self._say(f"  {text}", "dim")

    def on_start(self, info: StartInfo) -> None:
        self._pace.start(info)
        self._say(_headline(info), "bold")

    def on_log(self, record: dict[str, Any]) -> None:
        self._pace.note(record)
        if time.perf_counter() - self._last >= self._refresh_seconds:
            self._last = time.perf_counter()
            self._show(record["step"])

    def _show(self, step: int) -> None:
        raise NotImplementedError

    def on_evaluation(self, record: dict[str, Any]) -> None:
        self._say(f"{self._pace.position(record['step'])}  {_metrics(record)}")

    def on_preview(self, record: dict[str, Any]) -> None:
        self._say(_shown(record), "dim")

    def on_notice(self, text: str) -> None:
        self._say(f"note: {notice_text(text)}", "yellow")

    def on_length(self, num_steps: int) -> None:
        self._pace.change_length(num_steps)

    def on_end(self, status: str) -> None:
        # Whether it is good news to have finished is not known before the final test.
        style = {"finished": "bold", "stopped": "yellow"}.get(status, "red")
        self._say(f"{status} after {_clock(self._pace.elapsed())}", style)


class PlainProgress(_Progress):
    """Prints a line at the start and the end, at evaluations, and every ten seconds between."""

    _refresh_seconds = _PLAIN_SECONDS

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def _say(self, text: str, style: str | None = None) -> None:  # noqa: ARG002 - plain
        print(for_terminal(text), file=self._stream, flush=True)

    def on_start(self, info: StartInfo) -> None:
        super().on_start(info)
        self._last = time.perf_counter()

    def _show(self, step: int) -> None:
        self._say(f"{self._pace.position(step)}  {self._pace.text()}")


class RichProgress(_Progress):
    """A bar with loss, throughput and time left; evaluations and notices stand above it."""

    _refresh_seconds = _REFRESH_SECONDS

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__()
        self._console = Console(file=stream, highlight=False, markup=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            auto_refresh=False,  # a refreshing thread would take the interpreter from the loop
            transient=True,
            expand=True,
        )
        self._task_id: Any = None

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(for_terminal(text), style=style)

    def on_start(self, info: StartInfo) -> None:
        super().on_start(info)
        self._task_id = self._bar.add_task(
            for_terminal(info.name), total=info.num_steps, completed=info.first_step, text="",
            start=False,
        )  # fmt: skip
        self._bar.start()
        self._bar.refresh()

    def _show(self, step: int) -> None:
        self._bar.update(self._task_id, completed=step, text=self._pace.text())
        self._bar.refresh()

    def on_evaluation(self, record: dict[str, Any]) -> None:
        super().on_evaluation(record)
        self._bar.refresh()

    def on_length(self, num_steps: int) -> None:
        super().on_length(num_steps)
        self._bar.update(self._task_id, total=num_steps)

    def on_end(self, status: str) -> None:
        self._bar.stop()
        super().on_end(status)


class _Pace:
    """The position and the speed of a run."""

    def __init__(self) -> None:
        self._info: StartInfo | None = None
        self._record: dict[str, Any] = {}
        self._start = time.perf_counter()

    def start(self, info: StartInfo) -> None:
        """Begins the clock."""
        self._info, self._start = info, time.perf_counter()

    def change_length(self, num_steps: int) -> None:
        """Takes in another number of steps."""
        assert self._info is not None
        self._info = dataclasses.replace(self._info, num_steps=num_steps)

    def note(self, record: dict[str, Any]) -> None:
        """Takes in a logged line."""
        self._record = record

    def elapsed(self) -> float:
        """Returns the seconds since the start."""
        return time.perf_counter() - self._start

    def position(self, step: int) -> str:
        """Returns ``step 120/600``."""
        assert self._info is not None
        total = self._info.num_steps
        return f"step {step:>{len(str(total))}}/{total}"

    def text(self) -> str:
        """Returns loss, throughput and time left."""
        assert self._info is not None
        record = self._record
        # The whole run's pace, evaluations included, tells best how long the rest will take.
        done = record["step"] - self._info.first_step
        left = self.elapsed() / done * (self._info.num_steps - record["step"])
        return (
            f"loss {record['loss']:.4g}  {record['examples_per_second']:,.0f} examples/s  "
            f"{_clock(left)} left"
        )


def _headline(info: StartInfo) -> str:
    start = f"from step {info.first_step} on, " if info.first_step else ""
    steps, batch = count_text(info.num_steps, "step"), count_text(info.batch_size, "example")
    return (
        f"{info.name}: {info.num_parameters:,} parameters on {info.device}, "
        f"{start}{steps} of {batch} -> {info.folder}"
    )


def _metrics(record: dict[str, Any]) -> str:
    named = ((name, value) for name, value in record.items() if name != "step")
    return "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in named)


def _shown(record: dict[str, Any]) -> str:
    lines = (
        f"  {name}: {textwrap.shorten(str(value), _PREVIEW_WIDTH, placeholder=' ...')}"
        for name, value in record.items()
        if name != "step"
    )
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
