"""What a task trained again alone shows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import volano
from packing.structures import CONFIGS, STRUCTURES
from volano.errors import UsageError
from volano.packing.equality import UNIT_OF_PRECISION
from volano.packing.replay import plan_of_replays, replay
from volano.plan import Plan
from volano.training import RunFolder


def test_a_replay_shows_what_a_run_shows(tmp_path: Path) -> None:
    task = STRUCTURES["mlp"].task(
        CONFIGS[1], dtype=torch.float32, duration="24st", evaluate_every="12st"
    )
    plan = Plan.baseline()
    volano.train(task, plan=plan, out=tmp_path / "run")
    shown = replay(task, [12, 24], plan=plan)
    assert [stop.step for stop in shown] == [12, 24]
    records = RunFolder.open(tmp_path / "run").read_lines("metrics.jsonl")
    evaluations = [record for record in records if "valid_loss" in record]
    assert [dict(stop.metrics) for stop in shown] == [
        {"loss": record["valid_loss"], "accuracy": record["valid_accuracy"]}
        for record in evaluations
    ]


def test_evaluations_between_change_nothing() -> None:
    task = STRUCTURES["convolutional"].task(CONFIGS[2], dtype=torch.float32)
    once, often = replay(task, [20]), replay(task, [1, 7, 8, 20])
    assert once[-1].metrics == often[-1].metrics
    means = [stop.training_loss * count for stop, count in zip(often, (1, 6, 1, 12), strict=True)]
    assert sum(means) / 20 == pytest.approx(once[0].training_loss, rel=1e-12)


def test_a_unit_of_precision_moves_a_training_by_rounding() -> None:
    task = STRUCTURES["mlp"].task(CONFIGS[1], dtype=torch.float32)
    steps = list(range(3, 24, 3))  # a single figure may round to the same number
    plain, shaken = replay(task, steps), replay(task, steps, shake=UNIT_OF_PRECISION["fp32"])
    pairs = zip(plain, shaken, strict=True)
    assert 0 < max(abs(one.metrics["loss"] - other.metrics["loss"]) for one, other in pairs) < 1e-4


def test_training_ends_where_numbers_end() -> None:
    task = STRUCTURES["mlp with SGD"].task(CONFIGS[1], dtype=torch.float32, optimizer=_far)
    stops = replay(task, [1, 20, 24])
    assert math.isfinite(stops[0].training_loss)
    assert math.isnan(stops[1].training_loss)
    assert math.isnan(stops[2].training_loss)


def _far(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e30)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("steps", [[], [0], [3, 3], [5, 2], [101]])
def test_steps_rise_within_the_run(steps: list[int]) -> None:
    with pytest.raises(UsageError, match="rising steps of the task's run; got"):
        replay(STRUCTURES["mlp"].task(CONFIGS[0]), steps)


def test_replays_train_as_packs_do() -> None:
    assert plan_of_replays("cpu", "bf16") == Plan.baseline().pin(
        precision="bf16", optimizer="fused"
    )
