"""Trials of a study trained again alone: what rounding explains passes, anything else shows."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import volano
from packing.structures import CONFIGS, STRUCTURES, sgd
from volano import Task
from volano.errors import UsageError
from volano.packing import Member, Pack
from volano.packing.replay import Shown
from volano.record.study_folder import StudyFolder
from volano.running.trust import name_code
from volano.study.run_study import run_study
from volano.study.settings import StudySettings
from volano.study.workers.make_executor import make_executor

STEPS = (2, 6, 18)


@pytest.fixture(autouse=True)
def _build_is_the_persons_own() -> None:
    name_code("tests.api.test_verify:build")


PARAMS = [
    {"lr": 0.002 * 2**index, "drop": 0.05 + 0.1 * index, "smoothing": 0.02 * index}
    for index in range(4)
]


def build(trial: Any) -> Task:
    numbers = {
        "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
        "drop": trial.suggest_float("drop", 0.0, 0.5),
        "smoothing": trial.suggest_float("smoothing", 0.0, 0.2),
    }
    config = dataclasses.replace(CONFIGS[0], **numbers)
    return STRUCTURES["mlp"].task(config, dtype=torch.float32, duration="18st")


def build_exploding(trial: Any) -> Task:
    return dataclasses.replace(
        build(trial), optimizer=sgd(dataclasses.replace(CONFIGS[0], lr=1e30))
    )


def build_more_metrics(trial: Any) -> Task:
    task = build(trial)

    def objective(model: Any, batch: Any) -> volano.Loss:
        loss = task.objective(model, batch)
        assert isinstance(loss, volano.Loss)
        return dataclasses.replace(loss, metrics={**loss.metrics, "more": 1.0})

    return dataclasses.replace(task, objective=objective)


def recorded(
    made_by: Any = build, *, engine: str = "lowered", params: Any = PARAMS, precision: str = "fp32"
) -> Any:
    """A study as its packs made it, with two trials cut at the first rung and one at the second."""
    import optuna

    tasks = [made_by(optuna.trial.FixedTrial(own)) for own in params]
    members = [Member(number=n, task=task) for n, task in enumerate(tasks)]
    pack = Pack(members, device="cpu", engine=engine, precision=precision)
    rungs: dict[int, list[Shown]] = {number: [] for number in pack.numbers}
    for step, stay in zip(STEPS, ([1, 3], [3], [3]), strict=True):
        pack.advance(dict.fromkeys(pack.numbers, step))
        metrics, losses = pack.evaluate(), pack.losses()
        for number in pack.numbers:
            rungs[number].append(
                Shown(step=step, metrics=metrics[number], training_loss=losses[number])
            )
        if step != STEPS[-1]:
            pack.keep(stay)
    trials = tuple(
        SimpleNamespace(
            number=n, params=own, state="complete" if n == 3 else "pruned", rungs=tuple(rungs[n])
        )
        for n, own in enumerate(PARAMS)
    )
    return SimpleNamespace(
        trials=trials,
        best=SimpleNamespace(number=3),
        settings={
            "metric": "loss",
            "direction": "minimize",
            "seed": 5,
            "device": "cpu",
            "precision": precision,
        },
        facts={"source": {"kind": "reference", "reference": "tests.api.test_verify:build"}},
    )


@functools.cache
def usual(engine: str = "lowered", precision: str = "fp32") -> Any:
    """The same for all tests that change nothing of it."""
    return recorded(engine=engine, precision=precision)


def with_rung(study: Any, number: int, place: int, **changes: Any) -> Any:
    """The study with another value at a rung of a trial."""
    trials = list(study.trials)
    rungs = list(trials[number].rungs)
    rungs[place] = dataclasses.replace(rungs[place], **changes)
    trials[number] = SimpleNamespace(**{**vars(trials[number]), "rungs": tuple(rungs)})
    return SimpleNamespace(**{**vars(study), "trials": tuple(trials)})


@pytest.mark.parametrize("engine", ["loop", "lowered"])
def test_what_packs_showed_is_what_trials_show_alone(engine: str) -> None:
    verification = volano.verify(usual(engine), 4)
    assert verification.passed, verification.lines()
    assert set(verification.trials) == {0, 1, 2, 3}
    # Loss, accuracy and training loss, at each rung that a trial came to.
    assert len(verification.rows) == 3 * (1 + 2 + 1 + 3)
    if engine == "loop":
        assert {row.verdict for row in verification.rows} == {"equal"}
    # A difference ten times what rounding makes of a training in this precision would be seen.
    assert max(row.tolerance for row in verification.rows if row.figure != "accuracy") < 1e-2


def test_rungs_that_fall_on_one_step_are_compared_once() -> None:
    study = usual()
    first = study.trials[3].rungs[0]
    again = dataclasses.replace(first, training_loss=math.nan)  # no step was made since
    trial = SimpleNamespace(
        **{**vars(study.trials[3]), "rungs": (first, again, *study.trials[3].rungs[1:])}
    )
    study = SimpleNamespace(**{**vars(study), "trials": (*study.trials[:3], trial)})
    verification = volano.verify(study, trials=[3])
    assert verification.passed, verification.lines()
    assert len(verification.rows) == 3 * 3


@pytest.mark.parametrize("engine", ["loop", "lowered"])
def test_a_narrow_precision_has_a_wide_band(engine: str) -> None:
    study = usual(engine, "bf16")
    verification = volano.verify(study, 4)
    assert verification.passed, verification.lines()
    assert verification.precision == "bf16"
    # What was recorded in bf16 differs from fp32 by more than rounding in fp32.
    wrong = SimpleNamespace(**{**vars(study), "settings": {**study.settings, "precision": "fp32"}})
    assert not volano.verify(wrong, 4).passed


def test_the_best_trial_and_some_that_a_hash_draws_are_verified() -> None:
    study = usual("loop")
    first = volano.verify(study, 2)
    assert first.trials[0] == 3
    assert len(first.trials) == 2
    assert volano.verify(study, 2).trials == first.trials
    drawn = {volano.verify(_seeded(study, seed), 2).trials[1] for seed in range(4)}
    assert len(drawn) > 1


def _seeded(study: Any, seed: int) -> Any:
    return SimpleNamespace(**{**vars(study), "settings": {**study.settings, "seed": seed}})


def test_the_table_names_every_rung_and_the_verdict() -> None:
    lines = volano.verify(usual("loop"), trials=[1]).lines()
    assert lines[0].split() == [
        "trial",
        "step",
        "figure",
        "packed",
        "solo",
        "difference",
        "rounding",
        "verdict",
    ]
    assert [line.split()[:3] for line in lines[1:3]] == [["1", "2", "loss"], ["1", "6", "loss"]]
    assert all(line.endswith("equal") for line in lines[1:3])
    assert lines[-1] == (
        "6 figures of 1 trial, trained again alone on cpu: 6 bitwise equal, 0 within rounding in "
        "fp32"
    )


def test_swapped_learning_rates_are_seen() -> None:
    rates = [PARAMS[place]["lr"] for place in (1, 0, 2, 3)]
    swapped = [{**own, "lr": rate} for own, rate in zip(PARAMS, rates, strict=True)]
    study = recorded(params=swapped)
    verification = volano.verify(study, trials=[0, 1, 3])
    assert not verification.passed
    assert {row.trial for row in verification.rows if row.verdict == "differs"} == {0, 1}
    assert "differ by more than rounding in fp32 explains, the first: " in verification.summary


@pytest.mark.parametrize("figure", ["loss", "accuracy", "training loss"])
def test_a_figure_that_is_off_is_seen(figure: str) -> None:
    study = usual()
    shown = study.trials[3].rungs[1]
    off = (
        {"training_loss": shown.training_loss * 1.01}
        if figure == "training loss"
        else {
            "metrics": {
                **shown.metrics,
                figure: shown.metrics[figure] + (0.2 if figure == "accuracy" else 0.02),
            }
        }
    )
    verification = volano.verify(with_rung(study, 3, 1, **off), trials=[3])
    assert [(row.step, row.figure) for row in verification.rows if row.verdict == "differs"] == [
        (6, figure)
    ]
    assert any(
        line.split()[:2] == ["3", "6"] and line.endswith("differs") for line in verification.lines()
    )


def test_a_study_is_verified_from_its_folder(tmp_path: Path) -> None:
    folder = StudyFolder.reserve(tmp_path / "study", "verified")
    facts = {"source": {"kind": "reference", "reference": "tests.api.test_verify:build"}}
    study = run_study(
        build,
        StudySettings(trials=9, rungs=2),
        folder,
        lambda: make_executor(build, device="cpu"),
        facts=facts,
    )
    told: list[str] = []
    verification = volano.verify(tmp_path / "study", 3, on_progress=told.append)
    assert verification.passed, verification.lines()
    assert verification.trials[0] == study.best.number
    assert len(told) == 3
    assert {row.step for row in verification.rows} == {6, 18}
    # Its packs had members with other numbers, and not all trained to the end.
    assert max(len(pack["numbers"]) for pack in study.packs) > 2
    assert {trial.state for trial in study.trials} == {"pruned", "complete"}


def test_numbers_that_end_alike_are_equal() -> None:
    study = recorded(build_exploding, engine="loop")
    assert math.isnan(study.trials[3].rungs[-1].training_loss)
    assert volano.verify(study, trials=[3], build=build_exploding).passed
    assert not volano.verify(study, trials=[3]).passed


def test_what_cannot_be_verified_says_why() -> None:
    study = usual("loop")
    nameless = SimpleNamespace(**{**vars(study), "facts": {"source": {"kind": "python"}}})
    with pytest.raises(
        UsageError,
        match="must be made from a build function that can be found again; got a study that was "
        "started from Python",
    ):
        volano.verify(nameless)
    with pytest.raises(UsageError, match=r"reached a rung can be verified; got \[9\]"):
        volano.verify(study, trials=[9])
    with pytest.raises(UsageError, match="make the same tasks as for the study; got figures"):
        volano.verify(study, trials=[0], build=build_more_metrics)
    with pytest.raises(UsageError, match="one of 18 steps for trial 3, which stood at step 20"):
        volano.verify(with_rung(study, 3, 2, step=20), trials=[3])
    with pytest.raises(UsageError, match="At least one trial"):
        volano.verify(study, 0)
    assert volano.verify(nameless, trials=[0], build="tests.api.test_verify:build").passed
