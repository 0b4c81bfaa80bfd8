"""The progress of a run on standard error: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
import time
from typing import Any, TextIO

from volano.record.format import for_terminal
from volano.terminal import unfailing
from volano.training.observe import Observer, StartInfo

_PLAIN_SECONDS = 10.0
_REFRESH_SECONDS = 0.2
_PREVIEW_WIDTH = 200  # characters of a preview that are shown; previews.jsonl has all


def make_progress(stream: TextIO | None = None) -> Observer:
    """A bar if ``stream`` (standard error) is a terminal, else plain lines."""
    target = unfailing(sys.stderr if stream is None else stream)
    return RichProgress(target) if target.isatty() else PlainProgress(target)


class PlainProgress(Observer):
    """Prints a line at the start and the end, at evaluations, and every ten seconds between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = _Pace()
        self._last = 0.0

    def on_phase(self, text: str) -> None:
        """Prints what begins."""
        self._print(f"{text} ...")

    def on_candidate(self, text: str) -> None:
        """Prints what came of a candidate."""
        self._print(f"  {text}")

    def on_start(self, info: StartInfo) -> None:
        """Implements :class:`Observer`."""
        self._pace.start(info)
        self._last = time.perf_counter()
        self._print(_headline(info))

    def on_log(self, record: dict[str, Any]) -> None:
        """Implements :class:`Observer`."""
        self._pace.note(record)
        if time.perf_counter() - self._last >= _PLAIN_SECONDS:
            self._last = time.perf_counter()
            self._print(f"{self._pace.position()}  {self._pace.text()}")

    def on_evaluation(self, record: dict[str, Any]) -> None:
        """Implements :class:`Observer`."""
        self._print(f"{self._pace.position(record['step'])}  {_metrics(record)}")

    def on_preview(self, record: dict[str, Any]) -> None:
        """Implements :class:`Observer`."""
        self._print(_shown(record))

    def on_notice(self, text: str) -> None:
        """Implements :class:`Observer`."""
        self._print(f"note: {text}")

    def on_length(self, num_steps: int) -> None:
        """Implements :class:`Observer`."""
        self._pace.change_length(num_steps)

    def on_end(self, status: str) -> None:
        """Implements :class:`Observer`."""
        self._print(f"{status} after {_clock(self._pace.elapsed())}")

    def _print(self, line: str) -> None:
        print(for_terminal(line), file=self._stream, flush=True)


class RichProgress(Observer):
    """A bar with loss, throughput and time left; evaluations and notices stand above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._pace = _Pace()
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
        self._last = 0.0

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(for_terminal(text), style=style)

    def on_phase(self, text: str) -> None:
        """Prints what begins."""
        self._say(f"{text} ...", style="dim")

    def on_candidate(self, text: str) -> None:
        """Prints what came of a candidate."""
        self._say(f"  {text}", style="dim")

    def on_start(self, info: StartInfo) -> None:
        """Implements :class:`Observer`."""
        self._pace.start(info)
        self._say(_headline(info), style="bold")
        self._task_id = self._bar.add_task(
            for_terminal(info.name),
            total=info.num_steps,
            completed=info.first_step,
            text="",
            start=False,
        )
        self._bar.start()
        self._bar.refresh()

    def on_log(self, record: dict[str, Any]) -> None:
        """Implements :class:`Observer`."""
        self._pace.note(record)
        if time.perf_counter() - self._last >= _REFRESH_SECONDS:
            self._last = time.perf_counter()
            self._bar.update(self._task_id, completed=record["step"], text=self._pace.text())
            self._bar.refresh()

    def on_evaluation(self, record: dict[str, Any]) -> None:
        """Implements :class:`Observer`."""
        self._say(f"{self._pace.position(record['step'])}  {_metrics(record)}")
        self._bar.refresh()

    def on_preview(self, record: dict[str, Any]) -> None:
        """Implements :class:`Observer`."""
        self._say(_shown(record), style="dim")

    def on_notice(self, text: str) -> None:
        """Implements :class:`Observer`."""
        self._say(f"note: {text}", style="yellow")

    def on_length(self, num_steps: int) -> None:
        """Implements :class:`Observer`."""
        self._pace.change_length(num_steps)
        self._bar.update(self._task_id, total=num_steps)

    def on_end(self, status: str) -> None:
        """Implements :class:`Observer`."""
        self._bar.stop()
        # Whether it is good news to have finished is not known before the final test.
        style = {"finished": "bold", "stopped": "yellow"}.get(status, "red")
        self._say(f"{status} after {_clock(self._pace.elapsed())}", style=style)


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

    def position(self, step: int | None = None) -> str:
        """Returns ``step 120/600``."""
        assert self._info is not None
        total = self._info.num_steps
        step = self._record.get("step", 0) if step is None else step
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
    start = f"from step {info.first_step} " if info.first_step else ""
    return (
        f"{info.name}: {info.num_parameters:,} parameters on {info.device}, "
        f"{start}{info.num_steps:,} steps of {info.batch_size} -> {info.folder}"
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
