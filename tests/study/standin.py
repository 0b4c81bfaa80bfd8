"""Workers whose trials show a known function of their parameters, at once: the driver's own logic
in milliseconds."""

from __future__ import annotations

import collections
import functools
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import nn

import volano
from volano.record.study_folder import StudyFolder
from volano.study.observe import RungDecision, StudyInfo, StudyObserver, Summary
from volano.study.run_study import run_study
from volano.study.settings import StudySettings
from volano.study.study import Study
from volano.study.workers.messages import Assignment, Lost, PackFigures, Report, Trial, TrialOutcome

NUM_STEPS = 81
Shows = Callable[[dict[str, Any], int], float]


def bowl(params: dict[str, Any], step: int) -> float:
    """A loss that falls with the steps, towards a least value that ``x`` decides."""
    return (params["x"] - 0.3) ** 2 + 1.0 / (1 + step)


class Standin:
    """An executor whose ``num_workers`` answer in the order in which they were asked, or as
    ``order`` says.

    Args:
        shows: (params, step) -> loss; what it raises is the trial's failure.
        order: of the workers that are busy, which one is next.
        lose: (worker, assignment) -> whether it is lost instead of answering.
    """

    def __init__(
        self,
        shows: Shows = bowl,
        num_workers: int = 1,
        *,
        order: Callable[[list[int]], int] = lambda busy: busy[0],
        lose: Callable[[int, Assignment], bool] = lambda worker, assignment: False,
        before: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.num_workers, self._shows, self._order, self._lose, self._before = (
            num_workers,
            shows,
            order,
            lose,
            before,
        )
        self._busy: dict[int, Assignment] = {}
        self.assignments: list[tuple[int, Assignment]] = []
        self.steps: collections.Counter[int] = collections.Counter()
        self.is_closed = False

    def __enter__(self) -> Standin:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True

    def submit(self, worker: int, assignment: Assignment) -> None:
        assert worker not in self._busy
        self._busy[worker] = assignment
        self.assignments.append((worker, assignment))

    def next_finished(self, timeout: float | None = None) -> tuple[int, Report | Lost] | None:
        self._before(len(self.assignments))
        worker = self._order(list(self._busy))
        assignment = self._busy.pop(worker)
        if self._lose(worker, assignment):
            return worker, Lost(assignment=assignment.number, reason="it was killed")
        outcomes = tuple(self._outcome(trial, assignment) for trial in assignment.trials)
        facts = PackFigures(
            numbers=tuple(trial.number for trial in assignment.trials),
            structure="6fa0c2e1",
            engine="lowered",
            apart=(),
            refused={},
            seconds=0.5,
            startup_seconds=0.1,
            evaluation_seconds=0.1,
            steps=NUM_STEPS,
            solo_seconds_per_step=0.01,
        )
        return worker, Report(assignment=assignment.number, outcomes=outcomes, packs=(facts,))

    def _outcome(self, trial: Trial, assignment: Assignment) -> TrialOutcome:
        step = max(1, round(NUM_STEPS * assignment.share))
        start = 0 if trial.state is None else trial.state["step"]
        assert start <= step
        self.steps[trial.number] += step - start
        fields = {"number": trial.number, "step": step, "epoch": step / 9}
        try:
            loss = self._shows(dict(trial.params), step)
        except ArithmeticError as error:
            return TrialOutcome(
                **fields,
                metrics={},
                training_loss=math.nan,
                failure=f"{type(error).__name__}: {error}",
            )
        state = {
            "step": step,
            "model": {"weight": torch.full((2,), float(trial.number))},
            "ema": None,
        }
        return TrialOutcome(
            **fields,
            metrics={"loss": loss, "accuracy": 1 - loss},
            training_loss=loss,
            state=state if assignment.keep_states else None,
        )


_DATA = torch.utils.data.TensorDataset(torch.zeros(8, 2), torch.zeros(8, 1))


def task(**fields: Any) -> volano.Task:
    """A Task that nobody trains."""
    base: dict[str, Any] = {
        "model": lambda: nn.Linear(2, 1),
        "objective": lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
        "data": _DATA,
        "valid": _DATA,
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
        "batch_size": 8,  # an epoch of one step: rungs stand where they stand in steps
        "duration": f"{NUM_STEPS}st",
    }
    return volano.Task(**{**base, **fields})


def build(trial: Any) -> volano.Task:
    """The space of ``bowl``."""
    trial.suggest_float("x", 0.0, 1.0)
    return task()


class Heard(StudyObserver):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.infos: list[StudyInfo] = []
        self.summaries: list[Summary] = []
        self.decisions: list[RungDecision] = []
        self.notices: list[str] = []
        self.ends: list[Study] = []

    def on_start(self, info: StudyInfo) -> None:
        self.infos.append(info)

    def on_trials(self, summary: Summary) -> None:
        self.summaries.append(summary)

    def on_rung(self, decision: RungDecision) -> None:
        self.decisions.append(decision)

    def on_notice(self, text: str) -> None:
        # Stand-ins' trials are a few steps long; test_rank_noise.py is about what that says.
        if not text.startswith("ranks are noise"):
            self.notices.append(text)

    def on_end(self, study: Study) -> None:
        self.ends.append(study)


def run(
    out: Path,
    executor: Standin | None = None,
    *,
    build: Callable[[Any], Any] = build,
    resume: bool = False,
    storage: Any = None,
    sampler: optuna.samplers.BaseSampler | None = None,
    observer: StudyObserver | None = None,
    **settings: Any,
) -> Study:
    """A study of 27 trials, unless other settings are given."""
    folder = StudyFolder.open(out) if resume else StudyFolder.reserve(out, "explore")
    workers = Standin() if executor is None else executor
    return run_study(
        build,
        StudySettings(**{"trials": 27, **settings}),
        folder,
        lambda: workers,
        storage=storage,
        sampler=sampler,
        observer=observer,
        resume=resume,
    )


def lines(study, name="trials.jsonl"):
    return [json.loads(line) for line in (study.folder / name).read_text().splitlines()]


def told(study):
    """What Optuna knows: parameters, state, values at rungs and the reason of each trial."""
    return [
        (t.params, t.state.name, t.intermediate_values, t.user_attrs.get("reason"))
        for t in study.optuna.get_trials()
    ]


class Killed(BaseException):
    """As abrupt as SIGKILL, as far as the driver can tell."""


def interrupted_before(number):
    def before(num_assignments):
        if num_assignments == number:
            os.kill(os.getpid(), signal.SIGINT)

    return before
