"""The guard where memory is short: it looks at fewer examples before it strikes anything."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from planner import faults
from planner.searching import objective
from volano import Plan
from volano.device import Device
from volano.planner.parity.guard import ParityGuard

PLAN = Plan.baseline("cpu").pin(micro_batch=4)


def limited(most):
    """An objective that runs out of memory above so many examples of fp32; of float64, half as
    many."""

    def run(model, batch):
        inputs = batch[0]
        if not isinstance(inputs, FakeTensor) and len(inputs) * inputs.element_size() // 4 > most:
            raise torch.OutOfMemoryError(f"{len(inputs)} examples of {inputs.dtype}")
        return objective(model, batch)

    return run


def judge_of(task):
    return ParityGuard(task, Device("cpu"), lambda: 60.0)


@pytest.mark.parametrize("most", [16, 4])
def test_fewer_examples_are_looked_at_where_memory_runs_out(make_task, most):
    guard = judge_of(make_task(objective=limited(most)))
    found = guard.parity(Plan.baseline("cpu").pin(optimizer="fused"))
    assert found.passed, found.reason
    assert found.figures["examples"] == most // 2
    assert guard.reference.why_not_float64 is None


def test_a_limit_that_is_known_holds_from_the_first(make_task):
    guard = judge_of(make_task())
    guard.most_examples = 6
    assert guard.parity(PLAN).figures["examples"] == 6


def test_what_never_fits_is_said_to_be_the_guards(make_task):
    guard = judge_of(make_task(objective=limited(1)))
    found = guard.parity(PLAN)
    assert not found.passed
    assert "the guard" in found.reason
    assert "OutOfMemoryError" in found.reason


def test_a_fault_is_struck_and_not_cut_down(make_task):
    guard = judge_of(make_task(model=lambda: faults.WrongGradient(faults.in_bf16)))
    whole = guard.reference.probe_batch.size
    assert not guard.parity(PLAN.pin(micro_batch=None, precision="bf16")).passed
    assert guard.reference.probe_batch.size == whole
