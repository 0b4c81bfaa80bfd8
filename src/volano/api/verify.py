"""Checks that trials show in packs what they show alone, by training some of a study again one by
one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.apps.study_build import build_of
from volano.data import counter_hash
from volano.errors import UsageError
from volano.packing.replay import Compared, compare_figures, plan_of_replays
from volano.record.study import TrialResult
from volano.running.references import load_reference
from volano.running.trust import name_code, trust_folder
from volano.study.study import Study
from volano.study.workers.trial_tasks import Build
from volano.task import Task

_HASH_OF_DRAWING = 17
_COLUMNS_OF_WORDS = (2, 7)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The trials of a study, trained again alone.

    Attributes:
        rows: every figure at every rung of each trial.
        metric: the metric of the study.
        precision: the precision in which it trained.
        device: the device on which the trials were trained again.
        seconds: the seconds that it took.
    """

    rows: tuple[Compared, ...]
    metric: str
    precision: str
    device: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Returns whether rounding explains every difference."""
        return all(row.verdict != "differs" for row in self.rows)

    @property
    def trials(self) -> tuple[int, ...]:
        """The numbers of the trials."""
        return tuple(dict.fromkeys(row.trial for row in self.rows))

    def lines(self) -> list[str]:
        """A table for a person: the study's metric at every rung, other figures if they differ,
        and the verdict."""
        shown = [row for row in self.rows if row.figure == self.metric or row.verdict == "differs"]
        head = ("trial", "step", "figure", "packed", "solo", "difference", "rounding", "verdict")
        table = [head, *(_cells(row) for row in shown)]
        widths = [max(len(cells[column]) for cells in table) for column in range(len(head))]
        lines = [_line(cells, widths) for cells in table]
        return [*lines, "", self.summary]

    @property
    def summary(self) -> str:
        """The verdict in a sentence."""
        counts = {
            word: sum(row.verdict == word for row in self.rows)
            for word in ("equal", "rounding", "differs")
        }
        trials = f"{len(self.trials)} trial{'s' if len(self.trials) > 1 else ''}"
        of = f"{len(self.rows)} figures of {trials}, trained again alone on {self.device}"
        if not self.passed:
            wrong = next(row for row in self.rows if row.verdict == "differs")
            return (
                f"{counts['differs']} of {of} differ by more than rounding in {self.precision} "
                "explains, the first: "
                f"{wrong.figure} of trial {wrong.trial} at step {wrong.step}"
            )
        return (
            f"{of}: {counts['equal']} bitwise equal, {counts['rounding']} within rounding in "
            f"{self.precision}"
        )


def verify(
    study: Any,
    n: int = 3,
    *,
    build: Build | str | None = None,
    trials: Iterable[int] | None = None,
    device: str | None = None,
    trust: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Trains some of a study's trials alone, each from its first step to where it stood, and
    compares all figures that the study recorded of it.

    How far rounding takes two trainings of a trial apart is measured: it is trained alone twice,
    the second time with the optimizer's other implementation and with weights that begin one unit
    of the precision away.

    Args:
        study: a Study, or its folder.
        n: the number of trials: the best one, and others drawn by the study's seed.
        build: the build with which the study was made; not needed for a study that :func:`explore`
            has returned, nor for the folder of one that was an application's or ``"module:build"``.
        trials: their numbers, instead of ``n``.
        device: the device to use; None is the study's.
        trust: whether code that the study's folder names may be imported.
        on_progress: the function that hears of each training before it begins.

    Raises:
        UsageError: there is nothing to compare, or ``build`` is missing or makes another task.
    """
    if isinstance(study, str | Path):
        trust_folder(study, trust)
        study = Study.open(study)
    settings = study.settings
    name_code(build)
    build = build or getattr(study, "build", None)
    precision = settings.get("precision") or "fp32"
    if build is None:
        make = build_of(study.facts.get("source"), getattr(study, "folder", None))
    else:
        make = load_reference(build) if isinstance(build, str) else build
    plan = plan_of_replays(device or settings.get("device"), precision)
    rows: list[Compared] = []
    seconds = 0.0
    for trial in _chosen(study, n, trials):
        on_progress(f"trial {trial.number}: {trial.rungs[-1].step} steps alone, twice")
        task = _task_of(make, trial)
        start = time.perf_counter()
        rows += compare_figures(trial.number, task, trial.rungs, plan)
        seconds += time.perf_counter() - start
    metric = settings.get("metric", "loss")
    return Verification(
        rows=tuple(rows), metric=metric, precision=precision, device=plan.device, seconds=seconds
    )


def _task_of(build: Build, trial: TrialResult) -> Task:
    import optuna

    task = build(optuna.trial.FixedTrial(dict(trial.params), number=trial.number))
    if not isinstance(task, Task):
        raise UsageError("build(trial) must return a volano.Task", got=type(task).__name__)
    if trial.rungs[-1].step > task.num_steps:
        raise UsageError(
            "build must make the tasks that it made for the study",
            got=f"one of {task.num_steps} steps for trial {trial.number}, which stood at step "
            f"{trial.rungs[-1].step}",
        )
    return task


def _chosen(study: Any, n: int, numbers: Iterable[int] | None) -> list[TrialResult]:
    """The trials that were named, or the best one and ``n - 1`` that a hash of the study's seed
    draws."""
    recorded: dict[int, TrialResult] = {
        t.number: t for t in study.trials if t.rungs and t.state != "failed"
    }
    if numbers is None:
        if n < 1 or not recorded:
            raise UsageError(
                "At least one trial that has reached a rung must be verified",
                got=f"n={n}, {len(recorded)} such",
            )
        seed = int(study.settings.get("seed") or 0)
        drawn = sorted(recorded, key=lambda number: counter_hash(_HASH_OF_DRAWING, seed, number))
        best = study.best.number
        numbers = [best, *(number for number in drawn if number != best)][:n]
    wanted = list(dict.fromkeys(numbers))
    missing = [number for number in wanted if number not in recorded]
    if missing or not wanted:
        raise UsageError(
            "Only trials that have reached a rung can be verified", got=missing or "none"
        )
    return [recorded[number] for number in wanted]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if column in _COLUMNS_OF_WORDS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _cells(row: Compared) -> tuple[str, ...]:
    numbers = (
        f"{row.packed:.6g}",
        f"{row.solo:.6g}",
        f"{row.difference:+.1e}",
        f"{row.tolerance:.1e}",
    )
    return (str(row.trial), str(row.step), row.figure, *numbers, row.verdict)
