"""What measurements teach predictions: recorded pairs, and what must hold for any."""

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.errors import UsageError
from volano.plan import Plan
from volano.plan.prediction import TimePrediction
from volano.planner.time.calibration import Calibration

# Steps recorded on one core of an AMD EPYC (torch 2.13): network, precision, memory format, kind
# that dominates the prediction, milliseconds predicted from the limits of a matrix product and a
# copy alone, milliseconds measured.
RECORDED = (
    ("perceptron, small", "fp32", "contiguous", "matmul", 0.49, 0.61),
    ("perceptron, small", "bf16", "contiguous", "launch", 0.34, 0.56),
    ("perceptron, large", "fp32", "contiguous", "matmul", 25.96, 30.69),
    ("perceptron, large", "bf16", "contiguous", "matmul", 6.86, 9.12),
    ("residual network", "fp32", "contiguous", "convolution", 131.03, 99.66),
    ("residual network", "bf16", "contiguous", "convolution", 33.90, 58.21),
    ("residual network", "fp32", "channels_last", "convolution", 131.05, 84.68),
    ("residual network", "bf16", "channels_last", "convolution", 33.92, 50.04),
    ("transformer", "fp32", "contiguous", "matmul", 310.61, 294.40),
    ("transformer", "bf16", "contiguous", "matmul", 83.89, 173.94),
    ("LSTM", "fp32", "contiguous", "recurrent", 58.47, 37.10),
    ("LSTM", "bf16", "contiguous", "recurrent", 15.69, 18.42),
)
seconds = st.floats(1e-6, 1e6)
plans = st.builds(
    Plan,
    device=st.sampled_from(("cpu", "xpu:0")),
    precision=st.sampled_from(("fp32", "bf16")),
    compile=st.booleans(),
    memory_format=st.sampled_from(("contiguous", "channels_last")),
)
predictions = st.builds(
    lambda step, kind: TimePrediction(step=step, bounds={"compute": step}, kinds={kind: step}),
    seconds,
    st.sampled_from(("matmul", "convolution", "launch")),
)


def pair(row):
    _, precision, memory_format, kind, predicted, measured = row
    prediction = TimePrediction(
        step=predicted, bounds={"compute": predicted}, kinds={kind: predicted}
    )
    return Plan(precision=precision, memory_format=memory_format), prediction, measured


def learned(rows):
    calibration = Calibration()
    for row in rows:
        calibration = calibration.update(*pair(row))
    return calibration


def rank_correlation(left, right):
    """Spearman's, of values without ties."""
    ranks = [[sorted(values).index(value) for value in values] for values in (left, right)]
    return statistics.correlation(*ranks)


def predicted(calibration, row):
    plan, prediction, _ = pair(row)
    return calibration.apply(plan, prediction).step


def test_measured_steps_are_predicted_better_and_in_their_order():
    before = [abs(math.log(row[4] / row[5])) for row in RECORDED]
    calibration = learned(RECORDED)
    after = [abs(math.log(predicted(calibration, row) / row[5])) for row in RECORDED]
    assert statistics.mean(after) < statistics.mean(before) / 2
    # The two memory formats of the residual network are one for the limits; measured once, they are
    # in their order.
    values = [predicted(calibration, row) for row in RECORDED]
    assert rank_correlation(values, [row[5] for row in RECORDED]) > 0.97
    assert predicted(calibration, RECORDED[6]) < 0.9 * predicted(calibration, RECORDED[4])


def test_a_step_never_measured_is_predicted_better_from_others_of_its_network():
    """Each row is left out in turn."""
    networks = [row for row in RECORDED if row[0] == "residual network"]
    before, after = [], []
    for row in networks:
        calibration = learned(other for other in RECORDED if other is not row)
        before.append(abs(math.log(row[4] / row[5])))
        after.append(abs(math.log(predicted(calibration, row) / row[5])))
    assert max(after) < max(before) / 2


def test_the_narrowest_class_that_was_measured_counts():
    step = TimePrediction(step=1.0, kinds={"convolution": 1.0})
    eager, last, compiled = Plan(), Plan(memory_format="channels_last"), Plan(compile=True)
    calibration = Calibration().update(eager, step, 2.0).update(last, step, 4.0)
    assert calibration.factor(eager, step) == pytest.approx(2)
    assert calibration.factor(last, step) == pytest.approx(4)
    # Never measured compiled: what is known of convolutions; of another kind: what is known of the
    # device.
    assert calibration.factor(compiled, step) == pytest.approx(math.sqrt(8))
    assert calibration.factor(
        compiled, TimePrediction(step=1.0, kinds={"matmul": 1.0})
    ) == pytest.approx(math.sqrt(8))
    assert calibration.factor(Plan(device="xpu:0"), step) is None
    assert calibration.apply(Plan(device="xpu:0"), step) == step


def test_hardware_can_be_named():
    step = TimePrediction(step=1.0, kinds={"matmul": 1.0})
    calibration = Calibration().update(Plan(device="xpu:0"), step, 3.0, device="Max 1550")
    assert calibration.factor(Plan(device="xpu:1"), step, device="Max 1550") == pytest.approx(3)
    assert calibration.factor(Plan(device="xpu:0"), step) is None


def test_one_wild_measurement_moves_nothing_much():
    step = TimePrediction(step=1.0, kinds={"matmul": 1.0})
    calibration = Calibration()
    for measured in (1.5, 1.6, 1e9, 1.4, 1.5):
        calibration = calibration.update(Plan(), step, measured)
    assert calibration.factor(Plan(), step) == pytest.approx(1.5)


def test_a_device_that_changes_is_believed():
    step = TimePrediction(step=1.0, kinds={"matmul": 1.0})
    calibration = Calibration()
    for measured in [1.0] * 100 + [2.0] * 10:
        calibration = calibration.update(Plan(), step, measured)
    assert calibration.factor(Plan(), step) == pytest.approx(2)


@given(plans, predictions, seconds)
def test_a_class_measured_once_is_predicted_as_measured_within_bounds(plan, prediction, measured):
    corrected = Calibration().update(plan, prediction, measured).apply(plan, prediction)
    bounded = min(32 * prediction.step, max(prediction.step / 32, measured))
    assert corrected.step == pytest.approx(bounded)
    assert (
        sum(corrected.bounds.values())
        == pytest.approx(corrected.step)
        == sum(corrected.kinds.values())
    )
    assert corrected.origin == "calibrated"


@given(st.lists(st.tuples(plans, predictions, seconds), max_size=20))
def test_json_there_and_back(pairs):
    calibration = Calibration()
    for each in pairs:
        calibration = calibration.update(*each)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"schema_version": 0, "ratios": {}},
        {"schema_version": 1, "ratios": []},
        {"schema_version": 1, "ratios": {"cpu": 1.0}},
        {"schema_version": 1, "ratios": {"cpu": [math.inf]}},
        {"schema_version": 1, "ratios": {"cpu": [math.nan]}},
        {"schema_version": 1, "ratios": {"cpu": [True]}},
        {"schema_version": 1, "ratios": {"cpu": ["1"]}},
    ],
)
def test_what_is_no_calibration_is_refused(value):
    with pytest.raises(UsageError, match="A calibration"):
        Calibration.from_json(value)


@pytest.mark.parametrize("measured", [0.0, -1.0, math.inf, math.nan])
def test_only_times_teach(measured):
    with pytest.raises(UsageError, match="positive, finite seconds"):
        Calibration().update(Plan(), TimePrediction(step=1.0), measured)


def test_what_was_measured_is_not_corrected():
    calibration = Calibration().update(Plan(), TimePrediction(step=1.0), 2.0)
    measured = TimePrediction(step=1.0, origin="measured")
    assert calibration.apply(Plan(), measured) is measured
