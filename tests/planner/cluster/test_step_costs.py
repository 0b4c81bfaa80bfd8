"""Costs at micro-batches between those that were captured."""

import pytest

from volano.plan import Plan
from volano.plan.prediction import MemoryPrediction, Operation
from volano.planner.cluster.step_costs import CostsByMicroBatch, StepCosts
from volano.planner.memory.predict import Prediction
from volano.planner.time.roofline import Rates

RATES = Rates(
    name="made up", flops={"fp32": 1e12}, memory=1e12, launch=1e-3, ahead=True, efficiency={}
)


def costs(size):
    """A product of ``size`` rows, and an update; activations against what the update holds."""
    operations = (
        Operation(
            name="mm", phase="forward", kind="matmul", dtype="fp32", flops=size * 10**10,
            num_bytes=10**9,
        ),
        Operation(
            name="add", phase="optimizer", kind="pointwise", dtype="fp32", flops=0,
            num_bytes=8 * 10**9,
        ),
    )  # fmt: skip
    activations = max(500, 100 * size)
    categories = {"parameters": 1000, "gradients": 0, "activations": activations}
    memory = MemoryPrediction(
        peak=1000 + activations, lower=1000 + activations, upper=2000 + activations,
        categories=categories,
    )  # fmt: skip
    prediction = Prediction(memory=memory, operations=operations, target="accelerator")
    return StepCosts.of_captured(prediction, Plan(), RATES, gradient_bytes=700)


def test_between_two_captures():
    asked = []

    def captured(size):
        asked.append(size)
        return costs(size)

    table = CostsByMicroBatch(captured, (1, 64))
    assert table.at(1).memory.peak == 1000 + 700 + 500
    middle = table.at(16)
    assert sorted(asked) == [1, 64]
    assert middle.step(2, 1).step == pytest.approx(costs(16).step(2, 1).step)
    # Memory lies on the line or above what a capture would say, never below.
    assert middle.memory.upper >= costs(16).memory.upper
    assert table.at(64).memory == costs(64).memory
    assert sum(middle.memory.categories.values()) == middle.memory.peak


def test_a_step_by_hand():
    # Three products of 0.32 s and 1 ms of bytes; an eighth of an update of 8 ms.
    step = costs(32).step(3, 8)
    assert step.step == pytest.approx(3 * (0.32 + 0.001) + 0.001)
    assert sum(step.bounds.values()) == pytest.approx(step.step) == sum(step.kinds.values())
    # Where the device is faster than its host, the host's starts are what is waited for.
    assert costs(0).step(1, 10**9).bounds["launch"] == pytest.approx(2e-3 - 1e-3)
