"""Priors of what compiling and timing kernels may save."""

from types import SimpleNamespace

import pytest

from volano.plan import Plan
from volano.plan.prediction import Operation
from volano.planner.search.gains import autotune_gain, benchmark_gain, compile_gain, is_worth
from volano.planner.time.roofline import Rates, predict_time

GPU = Rates(name="some", flops={"fp32": 1e13}, memory=1e12, launch=1e-5, ahead=True)
PLAN = Plan(device="some:0")


def model_of(*operations):
    return SimpleNamespace(time=lambda plan: predict_time(operations, GPU, plan))


def operation(kind, *, flops=0, num_bytes=0):
    return Operation(
        name=kind, phase="forward", kind=kind, dtype="fp32", flops=flops, num_bytes=num_bytes
    )


PRODUCT = operation("matmul", flops=10**11)
POINTWISE = operation("pointwise", num_bytes=10**10)


def test_steps_bound_by_memory_gain_the_most():
    gains = [
        compile_gain(model_of(*operations), PLAN, is_cpu=False)
        for operations in ([PRODUCT], [PRODUCT, POINTWISE], [POINTWISE])
    ]
    assert gains[0] == 0.05  # the least that is believed
    assert gains[0] < gains[1] < gains[2] == pytest.approx(1 - 0.67, abs=0.02)


def test_a_processor_gains_what_was_measured_there():
    assert compile_gain(model_of(PRODUCT), PLAN, is_cpu=True) == 0.2
    unknown = SimpleNamespace(time=lambda _: None)
    assert compile_gain(unknown, PLAN, is_cpu=False) == 0.3


def test_other_kernels_save_a_share_of_what_they_compute():
    found = model_of(operation("convolution", flops=10**12), PRODUCT)
    assert benchmark_gain(model_of(PRODUCT), PLAN) == 0.0
    assert 0.0 < autotune_gain(found, PLAN) <= 0.1
    assert 0.1 < benchmark_gain(found, PLAN) < 0.15


def test_what_is_tried_may_save_more_than_twice_its_start_up():
    assert is_worth(20.0, 10.0)
    assert not is_worth(19.0, 10.0)
