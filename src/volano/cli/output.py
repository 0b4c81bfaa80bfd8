"""Prints what the commands have to say: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from volano.pretrained.network_references import code_of_reference
from volano.record.format import for_terminal
from volano.record.json_values import finite, mapping, read_object
from volano.record.run_folder import PAGE, RunFolder
from volano.record.shell import quoted
from volano.terminal import unfailing


def print_json(value: dict[str, Any]) -> None:
    """Prints a JSON object on a line of standard output."""
    print(json.dumps(finite(value), default=_plain), flush=True)  # noqa: T201 - this is the printer


def print_error(record: dict[str, Any]) -> None:
    """Prints the JSON object of a command that failed; nobody may be there to read it."""
    print(json.dumps(record), file=unfailing(sys.stdout), flush=True)


def say(*lines: str) -> None:
    """Prints lines on standard output."""
    for line in lines:
        print(for_terminal(line), flush=True)  # noqa: T201 - this is the printer


def say_wrapped(*paragraphs: str) -> None:
    """Prints paragraphs as wide as the terminal, and 80 columns wide in a pipe."""
    for paragraph in paragraphs:
        say(*textwrap.wrap(paragraph, _columns()))


def say_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Prints names and what is known of them, as wide as the terminal, 80 columns in a pipe."""
    facts = [(name, str(value)) for name, value in facts]
    width = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        lines = textwrap.wrap(value, _columns() - width) or [""]
        say(f"{name:<{width}}{lines[0]}", *(" " * width + line for line in lines[1:]))


def _columns() -> int:
    return max(40, min(100, shutil.get_terminal_size((80, 24)).columns))


def write(text: str) -> None:
    """A piece of a line on standard output, at once; as it is if no terminal obeys it."""
    text = for_terminal(text) if sys.stdout.isatty() else text
    print(text, end="", flush=True)  # noqa: T201 - this is the printer


def warn(line: str) -> None:
    """A line on standard error."""
    print(for_terminal(line), file=unfailing(sys.stderr), flush=True)


def run_record(run: Any) -> dict[str, Any]:
    """A run as ``--json`` prints it."""
    return {
        "run": str(run.path),
        "status": run.status,
        "task": RunFolder.open(run.path).read_json("task.json"),
        "plan": run.plan.to_json(),
        "metrics": run.metrics,
        "verdict": None if run.verdict is None else run.verdict.to_json(),
        "seconds": run.seconds,
        "notices": list(run.notices),
        "report": str(report_of(run)) if report_of(run) else None,
    }


def figures_in_words(metrics: Mapping[str, Any]) -> str:
    """Returns figures on a line; null, as a run's folder keeps it, is no number."""
    known = {n: v if isinstance(v, int | float) else math.nan for n, v in metrics.items()}
    return "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in known.items())


def report_of(run: Any) -> Path | None:
    """The page about a run, if there is one."""
    page = Path(run.path) / PAGE
    return page if page.is_file() else None


def say_verdict(verdict: Any) -> None:
    """Prints what a finished run's figures are worth: in green only if that is good news."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    style = "green" if verdict.is_good_news else None if verdict.is_good else "yellow"
    for line in verdict.lines():
        console.print(line, style=style, soft_wrap=True)


def say_finished(run: Any) -> None:
    """Prints where a finished run and the page about it lie."""
    say(f"run: {run.path}", *([f"report: {report_of(run)}"] if report_of(run) else []))


def say_unfinished(run: Any) -> None:
    """Prints where a stopped run lies, and how it is resumed."""
    command = RunFolder(Path(run.path)).resume_command
    say(f"run: {run.path}", f"resume: {to_paste(command, run.path)}")


def to_paste(command: str, path: str | Path) -> str:
    """Returns a command about a run with the code that its folder names, which it is to import, and
    with the run's data in the place of files to predict if it can be predicted."""
    source = mapping(read_object(Path(path) / "run.json", []).get("source"))
    names = (
        source.get("reference"), source.get("build"), source.get("kind"),
        mapping(source.get("dials")).get("model"),
        *code_of_reference(mapping(source.get("dials")).get("from_")),
    )  # fmt: skip
    code = next((name for name in names if isinstance(name, str) and ":" in name), None)
    data = mapping(source.get("dials")).get("path")
    if isinstance(data, str) and (source.get("kind") == "text" or _has_folders(Path(data))):
        command = re.sub(r"(FILES|CLIPS)\.\.\.", lambda _: quoted(data), command)
    return command if code is None else f"{command} --code {quoted(code)}"


def _has_folders(path: Path) -> bool:
    """Returns whether a path is that of a folder with folders, as those of classes: images of
    tables and of IDX files are no files to predict."""
    try:
        return path.is_dir() and any(one.is_dir() for one in path.iterdir())
    except OSError:
        return False


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[int] = ()
) -> None:
    """A table on standard output; ``right`` are the columns of numbers."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if title:
        say(title)
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(for_terminal(str(value))) for value in row))
    # Not a terminal: as wide as it needs to be, so that nothing is cut in a file or a pipe.
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table)


def show(parts: Iterable[Any]) -> None:
    """Prints lines and tables (``apps.application.Table``)."""
    for part in parts:
        if isinstance(part, str):
            say(part)
        else:
            print_table(part.title, part.columns, part.rows, right=part.right)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
