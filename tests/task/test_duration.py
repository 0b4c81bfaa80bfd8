import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.errors import TaskError
from volano.task import Duration


@given(st.integers(1, 10**6), st.integers(1, 10**5))
def test_whole_epochs_are_whole_multiples(epochs, steps_per_epoch):
    assert Duration.parse(f"{epochs}ep").steps(steps_per_epoch) == epochs * steps_per_epoch


@given(st.integers(1, 10**9))
def test_steps_are_steps(steps):
    assert Duration.parse(f"{steps}st").steps(7) == steps


@given(st.integers(1, 999), st.integers(1, 1000))
def test_a_part_of_an_epoch_rounds_up(thousandths, steps_per_epoch):
    steps = Duration.parse(f"{thousandths / 1000}ep").steps(steps_per_epoch)
    assert steps == max(1, math.ceil(thousandths * steps_per_epoch / 1000))


@given(st.floats(0.001, 1e6), st.sampled_from(["ep", "st"]))
def test_text_and_back(amount, unit):
    duration = Duration(float(round(amount) or 1), unit)
    assert Duration.parse(str(duration)) == duration


@pytest.mark.parametrize(
    "amount", [0, -1, float("nan"), float("inf"), 10**400, 1e300, "2", True, None]
)
def test_an_amount_that_cannot_be(amount):
    with pytest.raises(TaskError, match=r"A duration must be above 0, and at most 1e\+15; got "):
        Duration(amount, "ep")
    with pytest.raises(TaskError, match="A duration must be above 0"):
        Duration.parse("9" * 5000 + "ep")
