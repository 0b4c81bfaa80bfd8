"""Whether what packs showed is what the same trials show alone: trials of a study, trained again one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.apps.study_build import build_of
from volano.data import counter_hash
from volano.errors import UsageError
from volano.packing.equality.replay import UNIT_OF_PRECISION, Replayed, plan_of_replays, replay
from volano.plan import Plan
from volano.record.study import RungValue, TrialResult
from volano.running.references import load_reference
from volano.study.study import Study
from volano.task import Task

Build = Callable[[Any], Task]
TRAINING_LOSS = "training loss"

# A deviation of so many times that of a second training alone, which differs by rounding, is still rounding. The
# second one rounds differently once, at its beginning; a pack does at every operation.
_TIMES_THE_BAND = 10.0
# Sums over a batch or a set in another order, in fp32 whatever the precision: some hundred additions, each with half a
# unit of error; and what is summed may each be rounded otherwise.
_UNITS_OF_A_SUM, _UNITS_OF_A_TERM = 256, 2
# Examples whose class may change by rounding: those whose two best classes are as good as each other.
_EXAMPLES_THAT_FLIP = 2
# What is smaller is rounded as if it were so large: losses near zero are differences of larger numbers.
_SMALLEST = 0.1
_HASH_OF_DRAWING = 17
_COLUMNS_OF_WORDS = (2, 7)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A figure that a trial showed in a pack and alone.

    Attributes:
        trial: its number.
        step: optimizer steps made.
        figure: ``"loss"`` or another metric of the evaluation, or ``"training loss"``.
        packed, solo: its values.
        tolerance: how far rounding may take the two apart.
    """

    trial: int
    step: int
    figure: str
    packed: float
    solo: float
    tolerance: float

    @property
    def difference(self) -> float:
        """``packed - solo``; 0 where neither is a number."""
        return 0.0 if math.isnan(self.packed) and math.isnan(self.solo) else self.packed - self.solo

    @property
    def verdict(self) -> str:
        """``"equal"``, ``"rounding"`` or ``"differs"``."""
        if self.packed == self.solo or (math.isnan(self.packed) and math.isnan(self.solo)):
            return "equal"
        explained = math.isinf(self.tolerance) or abs(self.difference) <= self.tolerance
        return "rounding" if explained else "differs"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Trials of a study, trained again alone.

    Attributes:
        rows: every figure at every rung of each trial.
        metric: of the study.
        precision: in which it trained.
        device: on which the trials were trained again.
        seconds: that it took.
    """

    rows: tuple[Compared, ...]
    metric: str
    precision: str
    device: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether rounding explains every difference."""
        return all(row.verdict != "differs" for row in self.rows)

    @property
    def trials(self) -> tuple[int, ...]:
        """The numbers of the trials."""
        return tuple(dict.fromkeys(row.trial for row in self.rows))

    def lines(self) -> list[str]:
        """A table for a person: the study's metric at every rung, other figures where they differ, and the verdict."""
        shown = [row for row in self.rows if row.figure == self.metric or row.verdict == "differs"]
        head = ("trial", "step", "figure", "packed", "solo", "difference", "rounding", "verdict")
        table = [head, *(_cells(row) for row in shown)]
        widths = [max(len(cells[column]) for cells in table) for column in range(len(head))]
        lines = [_line(cells, widths) for cells in table]
        return [*lines, "", self.summary]

    @property
    def summary(self) -> str:
        """The verdict in a sentence."""
        counts = {word: sum(row.verdict == word for row in self.rows) for word in ("equal", "rounding", "differs")}
        trials = f"{len(self.trials)} trial{'s' if len(self.trials) > 1 else ''}"
        of = f"{len(self.rows)} figures of {trials}, trained again alone on {self.device}"
        if not self.passed:
            wrong = next(row for row in self.rows if row.verdict == "differs")
            return (
                f"{counts['differs']} of {of} differ by more than rounding in {self.precision} explains, the first: "
                f"{wrong.figure} of trial {wrong.trial} at step {wrong.step}"
            )
        return f"{of}: {counts['equal']} bitwise equal, {counts['rounding']} within rounding in {self.precision}"


def verify(
    study: Any,
    n: int = 3,
    *,
    build: Build | str | None = None,
    trials: Iterable[int] | None = None,
    device: str | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Trains some of a study's trials alone, each from its first step to where it stood, and compares all figures that
    the study recorded of it.

    How far rounding takes two trainings of a trial apart is measured: it is trained alone twice, the second time with
    the optimizer's other implementation and with weights that begin one unit of the precision away.

    Args:
        study: a Study, or its folder.
        n: how many trials: the best one, and others drawn by the study's seed.
        build: with which the study was made; not needed for a study that :func:`explore` has returned, nor for the
            folder of one that was an application's or ``"module:build"``.
        trials: their numbers, instead of ``n``.
        device: on which; None is the study's.
        on_progress: told of each training before it begins.

    Raises:
        UsageError: there is nothing to compare, or ``build`` is missing or makes another task.
    """
    if isinstance(study, str | Path):
        study = Study.open(study)
    settings = study.settings
    build = build or getattr(study, "build", None)
    precision = settings.get("precision") or "fp32"
    if build is None:
        make = build_of(study.facts.get("source") or {})
    else:
        make = load_reference(build) if isinstance(build, str) else build
    plan = plan_of_replays(device or settings.get("device"), precision)
    rows: list[Compared] = []
    seconds = 0.0
    for trial in _chosen(study, n, trials):
        on_progress(f"trial {trial.number}: {trial.rungs[-1].step} steps alone, twice")
        task = _task_of(make, trial)
        runs = _runs(task, trial, plan, precision)
        rows += _compared(trial, task, runs, precision)
        seconds += sum(run.seconds for run in runs)
    metric = settings.get("metric", "loss")
    return Verification(rows=tuple(rows), metric=metric, precision=precision, device=plan.device, seconds=seconds)


def _task_of(build: Build, trial: TrialResult) -> Task:
    import optuna

    task = build(optuna.trial.FixedTrial(dict(trial.params), number=trial.number))
    if not isinstance(task, Task):
        raise UsageError("build(trial) returns a volano.Task", got=type(task).__name__)
    if trial.rungs[-1].step > task.num_steps:
        raise UsageError(
            "build makes the tasks that it made for the study",
            got=f"one of {task.num_steps} steps for trial {trial.number}, which stood at step {trial.rungs[-1].step}",
        )
    return task


def _chosen(study: Any, n: int, numbers: Iterable[int] | None) -> list[TrialResult]:
    """The trials that were named, or the best one and ``n - 1`` that a hash of the study's seed draws."""
    recorded: dict[int, TrialResult] = {t.number: t for t in study.trials if t.rungs and t.state != "failed"}
    if numbers is None:
        if n < 1 or not recorded:
            raise UsageError(
                "At least one trial that has reached a rung is verified", got=f"n={n}, {len(recorded)} such"
            )
        seed = int(study.settings.get("seed") or 0)
        drawn = sorted(recorded, key=lambda number: counter_hash(_HASH_OF_DRAWING, seed, number))
        best = study.best.number
        numbers = [best, *(number for number in drawn if number != best)][:n]
    wanted = list(dict.fromkeys(numbers))
    missing = [number for number in wanted if number not in recorded]
    if missing or not wanted:
        raise UsageError("Trials that have reached a rung are verified", got=missing or "none")
    return [recorded[number] for number in wanted]


def _runs(task: Task, trial: TrialResult, plan: Plan, precision: str) -> tuple[Replayed, Replayed]:
    steps = [rung.step for rung in _apart(trial.rungs)]
    other = plan.pin(optimizer="as_given")
    return replay(task, steps, plan=plan), replay(task, steps, plan=other, shake=UNIT_OF_PRECISION[precision])


def _apart(rungs: Sequence[RungValue]) -> list[RungValue]:
    """The rungs to which a trial was trained: in a run of a few steps several fall on one."""
    return [
        rung for before, rung in zip((None, *rungs), rungs, strict=False) if before is None or rung.step > before.step
    ]


def _compared(trial: TrialResult, task: Task, runs: tuple[Replayed, Replayed], precision: str) -> Iterator[Compared]:
    solo, shaken = ([_figures(stop) for stop in run.stops] for run in runs)
    widest: dict[str, float] = {}
    for rung, mine, others in zip(_apart(trial.rungs), solo, shaken, strict=True):
        packed = _figures(rung)
        if packed.keys() != mine.keys():
            raise UsageError(
                "build makes the tasks that it made for the study",
                got=f"figures {sorted(mine)}, where the study has {sorted(packed)}",
            )
        for name, value in packed.items():
            # What two trainings have come apart they may be apart later, though they cross for a moment.
            widest[name] = max(widest.get(name, 0.0), _band(mine[name], others[name]))
            floor = _UNITS_OF_A_SUM * UNIT_OF_PRECISION["fp32"] + _UNITS_OF_A_TERM * UNIT_OF_PRECISION[precision]
            share = max(floor, _TIMES_THE_BAND * widest[name])
            is_loss = name in ("loss", TRAINING_LOSS)
            flips = 0.0 if is_loss or task.valid is None else _EXAMPLES_THAT_FLIP / len(task.valid)
            yield Compared(
                trial=trial.number, step=rung.step, figure=name, packed=value, solo=mine[name],
                tolerance=max(_size(mine[name]) * share, flips),
            )  # fmt: skip


def _band(solo: float, shaken: float) -> float:
    """How far two trainings alone are apart, as a share of the value; infinity where only one is a finite number."""
    if math.isfinite(solo) and math.isfinite(shaken):
        return abs(solo - shaken) / _size(solo)
    return 0.0 if math.isfinite(solo) == math.isfinite(shaken) else math.inf


def _size(value: float) -> float:
    return max(_SMALLEST, abs(value)) if math.isfinite(value) else 1.0


def _figures(shown: Any) -> dict[str, float]:
    return {**shown.metrics, TRAINING_LOSS: shown.training_loss}


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if column in _COLUMNS_OF_WORDS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _cells(row: Compared) -> tuple[str, ...]:
    numbers = (f"{row.packed:.6g}", f"{row.solo:.6g}", f"{row.difference:+.1e}", f"{row.tolerance:.1e}")
    return (str(row.trial), str(row.step), row.figure, *numbers, row.verdict)
