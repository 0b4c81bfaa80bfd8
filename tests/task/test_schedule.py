import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano import constant, cosine, linear, trapezoid
from volano.errors import TaskError
from volano.task import progress_at

SHAPES = [
    constant(warmup=0.1),
    linear(warmup=0.1, final=0.1),
    cosine(warmup=0.1, final=0.1),
    trapezoid(warmup=0.1),
]


@given(st.sampled_from(SHAPES), st.floats(0, 1))
def test_a_multiplier_lies_between_zero_and_one(schedule, progress):
    assert 0.0 <= schedule(progress) <= 1.0


@pytest.mark.parametrize("schedule", SHAPES)
def test_no_step_is_lost(schedule):
    assert all(schedule(progress_at(step, 20)) > 0 for step in range(20))


@pytest.mark.parametrize("schedule", SHAPES)
def test_the_peak_is_one_and_the_warm_up_is_straight(schedule):
    assert schedule(0.1) == pytest.approx(1.0)
    assert schedule(0.05) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("schedule", "end"), [(linear(final=0.2), 0.2), (cosine(final=0.2), 0.2), (trapezoid(), 0.0)]
)
def test_the_end_is_the_final_value(schedule, end):
    assert schedule(1.0) == pytest.approx(end)


def test_a_cosine_agrees_with_torch():
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert cosine()(step / 50) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize(
    "make", [lambda: cosine(warmup=1.0), lambda: linear(final=-1), lambda: trapezoid(decay=0)]
)
def test_a_wrong_shape_is_refused(make):
    with pytest.raises(TaskError):
        make()
