"""Ends a run: writes its figures, and the page about one run or several side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from volano.errors import UsageError, VolanoError
from volano.record.json_values import number
from volano.record.shell import quoted
from volano.record.study_folder import STUDY
from volano.report import write_comparison, write_page, write_study_report
from volano.report.verdict import Score, judge, longer_command
from volano.training import Observer, Run, RunFolder


def write_report(*runs: str | Path, out: str | Path | None = None) -> Path:
    """Writes a self-contained page about one run, or about several side by side.

    Args:
        runs: folders of runs; a folder of a run that failed or is not finished gives a page of what
            is there. The folder of a study gives the page of the study.
        out: the file; None is ``report.html`` in the folder of a single run or study, and
            ``comparison.html`` in the current folder for several runs.

    Returns:
        where the page lies.

    Raises:
        UsageError: no run, something that is not a run's folder, or a study among others.
        RunError: the page cannot be written.
    """
    if not runs:
        raise UsageError("A report must be about one run or more", got="none")
    studies = [run for run in runs if (Path(run) / STUDY).is_file()]
    if studies:
        if len(runs) > 1 or out is not None:
            raise UsageError(
                "The page of a study must be about it alone, and lie in its folder",
                got=f"{studies[0]}, which is one, with "
                f"{'other runs' if len(runs) > 1 else 'another place'}",
                remedy=f"Say volano report {quoted(str(studies[0]))}",
            )
        from volano.study.importances import importances
        from volano.study.study import Study

        return write_study_report(
            Path(studies[0]), importances(Study.open(studies[0], is_tolerant=True))
        )
    return write_page(runs[0], out) if len(runs) == 1 else write_comparison(runs, out)


def end_run(
    run: Run,
    observer: Observer,
    *,
    metrics: dict[str, Any],
    seconds: dict[str, float],
    started: float,
    tested: float,
    score: Score | None = None,
    **fields: Any,
) -> tuple[Run, dict[str, float]]:
    """Writes the figures of an application's tested run to ``run.json``, and the report.

    Args:
        run: the run as the training left it.
        observer: the observer that hears of what could not be written.
        metrics: final figures.
        seconds: the seconds of the phases before the training.
        started: the time at which the whole began, by ``time.perf_counter``.
        tested: the time at which the test began.
        score: the figure by which the run is judged; None if it has none.
        fields: more of ``run.json``.

    Returns:
        the run, and the seconds of all phases.
    """
    phases = {**seconds, **{name: value for name, value in run.seconds.items() if name != "total"}}
    now = time.perf_counter()
    phases |= {"test": now - tested, "total": now - started}
    phases = {name: round(value, 3) for name, value in phases.items()}
    RunFolder(run.path).update_run(metrics=metrics, seconds=phases, **fields)
    return with_report(with_verdict(run, observer, score), observer), phases


def with_verdict(run: Run, observer: Observer, score: Score | None = None) -> Run:
    """The run with a verdict, which ``run.json`` keeps, if it has finished. The figures are worth
    more than what is said of them: a verdict that cannot be given is a notice."""
    if run.status != "finished":
        return run
    folder = RunFolder(run.path)
    try:
        record, lines = folder.read_json("run.json"), folder.read_lines("metrics.jsonl")
        found = [number(line["valid_loss"]) for line in lines if "valid_loss" in line]
        losses = [math.nan if loss is None else loss for loss in found]
        num_steps = int(record.get("num_steps") or 0)
        verdict = judge(num_steps=num_steps, losses=losses, score=score)
        if verdict.wants_more:
            again, seconds = (record.get("source") or {}).get("again"), record.get("seconds") or {}
            longer = longer_command(again, seconds=seconds, num_steps=num_steps)
            verdict = dataclasses.replace(verdict, longer=longer)
        folder.update_run(verdict=verdict.to_json())
    except VolanoError as error:
        return with_notices(run, [f"no verdict: {error}"], observer)
    return dataclasses.replace(run, verdict=verdict)


def with_report(run: Run, observer: Observer) -> Run:
    """Writes ``report.html`` of a run that has finished. A page that cannot be written is a notice
    of the run, never its failure; a run that was stopped gets none, since it can be resumed."""
    if run.status != "finished":
        return run
    try:
        write_page(run.path)
    except VolanoError as error:
        return with_notices(run, [f"no report: {error}"], observer)
    except Exception as error:  # noqa: BLE001 - hours of training are worth more than a page about them
        return with_notices(run, [f"no report: {type(error).__name__}: {error}"], observer)
    return run


def with_notices(run: Run, notices: Sequence[str], observer: Observer) -> Run:
    """The run with more notices, which the observer hears and ``run.json`` keeps."""
    if not notices:
        return run
    run = dataclasses.replace(run, notices=(*run.notices, *notices))
    for notice in notices:
        observer.on_notice(notice)
    with contextlib.suppress(VolanoError):  # on a full disk the notice has been told at least
        RunFolder(run.path).update_run(notices=list(run.notices))
    return run
