"""The tracker against what can be worked out by hand, and against the allocator."""

import pytest
import torch
from torch import nn

from volano.errors import ObjectiveError
from volano.plan.prediction import CATEGORIES
from volano.planner.memory.memory_tracker import MemoryTracker

N, I, O = 4, 8, 16  # noqa: E741 - examples, inputs, outputs


def watched_step(tracker, model, optimizer, inputs):
    objective = tracker.objective(lambda model, batch: model(batch).sum())
    optimizer.zero_grad()
    objective(model, inputs).backward()
    optimizer.step()
    tracker.adopt_results(optimizer)


def two_steps(**options):
    """Of ``sum(x W)`` under Adam, tracker included: W fp32 [I, O], x fp32 [N, I]."""
    model = nn.Linear(I, O, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), foreach=False)
    tracker = MemoryTracker(**options)
    inputs = torch.randn(N, I)
    with tracker:
        tracker.adopt(model.parameters(), "parameters")
        tracker.adopt([inputs], "batch")
        watched_step(tracker, model, optimizer, inputs)
        tracker.restart()
        watched_step(tracker, model, optimizer, inputs)
    return tracker


def test_categories_are_those_of_the_arithmetic():
    peak = two_steps().peak()
    assert set(peak.categories) == set(CATEGORIES)
    assert sum(peak.categories.values()) == peak.num_bytes
    assert peak.categories["parameters"] == 4 * I * O
    assert peak.categories["batch"] == 4 * N * I
    # Two moments, and the count of steps.
    assert peak.categories["optimizer_state"] == 2 * 4 * I * O + 4
    assert peak.categories["gradients"] == 4 * I * O
    # The peak stands in Adam's update, where the denominator is made of a square root.
    assert peak.categories["activations"] <= 4
    assert "aten." in peak.operator


def test_activations_are_what_outlives_the_forward_pass():
    tracker = MemoryTracker()
    x = torch.randn(64, 32, requires_grad=True)
    with tracker:
        tracker.adopt([x], "batch")
        tracker.restart()

        def objective(_, x):
            kept = x.exp()  # the backward pass of exp needs its result
            _ = x * 2  # nobody needs it
            return kept.sum()

        tracker.objective(objective)(nn.Identity(), x).backward()
    peak = tracker.peak()
    kept = 4 * 64 * 32
    assert peak.categories["batch"] == kept
    assert peak.categories["activations"] == kept + 4  # and the sum
    assert peak.num_bytes == 3 * kept + 8  # the third is the gradient; and that of the sum


def test_bytes_are_rounded_as_an_allocator_does():
    assert two_steps(granularity=512).peak().num_bytes % 512 == 0


def test_flops_are_those_of_the_products():
    counts = two_steps().operations()
    by_phase = {}
    for operation, count in counts.items():
        by_phase[operation.phase] = by_phase.get(operation.phase, 0) + operation.flops * count
    # x needs no gradient: one product forward, one backward.
    assert by_phase["forward"] == by_phase["backward"] == 2 * N * I * O
    assert by_phase["optimizer"] == 0


def test_a_product_moves_the_bytes_of_its_three_matrices():
    (product,) = [
        o for o in two_steps().operations() if o.kind == "matmul" and o.phase == "forward"
    ]
    assert product.num_bytes == 4 * (N * I + I * O + N * O)
    assert product.dtype == "fp32"


def test_the_operator_of_the_peak_names_its_module_in_both_directions():
    model = nn.Sequential(
        nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 4000), nn.ReLU()), nn.Linear(4000, 2)
    )
    tracker = MemoryTracker()
    with tracker:
        tracker.objective(lambda model, x: model(x).sum())(model, torch.randn(256, 8)).backward()
    assert tracker.peak().operator.endswith((" in 1.1", " in 2"))


def test_values_of_fake_tensors_are_read_by_nobody_but_the_optimizer():
    from torch._subclasses.fake_tensor import FakeTensorMode

    tracker = MemoryTracker(has_values=False)
    with FakeTensorMode(), tracker:
        x = torch.empty(3, requires_grad=True)
        with pytest.raises(ObjectiveError, match="reads a value from the device"):
            tracker.objective(lambda _, x: x.sum() * x.sum().item())(nn.Identity(), x)
        tracker.objective(lambda _, x: x.sum())(nn.Identity(), x).backward()
        assert x.grad.sum().item() == 1.0
