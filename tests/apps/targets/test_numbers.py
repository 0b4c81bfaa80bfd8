"""Numbers of an example, against figures worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score
from torch import nn

from volano.apps.targets.numbers import InUnits, Numbers
from volano.report.verdict import judge

TRAIN = np.array([[100.0, 1], [300, 2], [200, 3], [200, 2]])
TARGET = Numbers.of(("price", "rooms"), (), TRAIN)
ONE = Numbers.of(("price",), (), TRAIN[:, :1])


def scores_of(predicted, true):
    outputs = ONE.wanted(torch.tensor(predicted, dtype=torch.float64)[:, None])
    return ONE.scores(outputs, torch.tensor(true, dtype=torch.float64)[:, None])


def test_numbers_are_standardised_by_the_training_examples():
    wanted = TARGET.wanted(torch.from_numpy(TRAIN))
    assert wanted.dtype == torch.float32
    np.testing.assert_allclose(wanted.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(wanted.numpy().std(0), 1, rtol=1e-6)
    np.testing.assert_allclose(TARGET.in_units(wanted), TRAIN, rtol=1e-6)
    # Far from zero for their spread, as seconds since 1970.
    far = 1.7e9 + TRAIN[:, :1]
    of_far = Numbers.of(("time",), (), far)
    np.testing.assert_allclose(
        of_far.in_units(of_far.wanted(torch.from_numpy(far))), far, atol=1e-4
    )


def test_numbers_that_do_not_differ_in_training_have_a_deviation():
    assert Numbers.of(("x",), (), np.ones((3, 1))).deviations == (1.0,)


def test_the_loss_and_its_metric():
    wanted = ONE.wanted(torch.from_numpy(TRAIN[:, :1]))
    loss = ONE.loss(torch.zeros(4, 1), wanted)
    assert loss.metrics["mae"] == pytest.approx(50.0)  # in units
    assert loss.weight == 4
    assert TARGET.loss(torch.zeros(4, 2), TARGET.wanted(torch.from_numpy(TRAIN))).metrics[
        "mae"
    ] == pytest.approx(1 / math.sqrt(2), rel=1e-6)


def test_figures():
    true, predicted = [100.0, 150, 260, 410], [120.0, 150, 250, 400]
    found = scores_of(predicted, true)
    assert found["mae"] == pytest.approx(mean_absolute_error(true, predicted))
    assert found["r2"] == pytest.approx(r2_score(true, predicted))
    assert found["rmse"] == pytest.approx(math.sqrt((400 + 0 + 100 + 100) / 4))
    assert found["baseline_mae"] == pytest.approx((100 + 50 + 60 + 210) / 4)
    low, high = found["mae_interval"]
    assert low < found["mae"] < high
    assert found["per_number"]["price"]["pairs"][0] == pytest.approx([100, 120])
    # One standard error of the mean of 20, 0, 10, 10, times 1.96; resampled 200 times.
    assert (high - low) / 2 == pytest.approx(1.96 * np.std([20, 0, 10, 10]) / 2, rel=0.15)


def test_r2_of_equal_numbers_is_not_known():
    found = scores_of([1.0, 2.0], [3.0, 3.0])
    assert found["r2"] is None
    assert "R2 -" in Numbers.summary(ONE.final_figures(found), "texts")[0]


def test_words_tables_and_verdict():
    found = scores_of([120.0, 150, 250, 400], [100.0, 150, 260, 410])
    table, sentence = ONE.tables({**found, "origin": "a table"}, "images")
    assert table.rows[0][:2] == ("price", "10")
    assert sentence.startswith("mean absolute error 10   (95 %: ")
    (line,) = Numbers.summary(ONE.final_figures(found), "of the test images")
    assert line.startswith("test MAE 10 on 4 of the test images   (95 %: ")
    assert "always the mean: 105)" in line
    verdict = judge(num_steps=100, score=ONE.score(found))
    assert "better than always the mean (105.00)" in verdict.reasons
    assert any("test examples are few" in reason for reason in verdict.reasons)


def test_predictions_are_in_units():
    outputs = TARGET.wanted(torch.from_numpy(TRAIN))
    first, *_ = TARGET.predictions(outputs, list("wxyz"), 3)
    assert first.numbers == pytest.approx({"price": 100, "rooms": 1})
    assert first.number == pytest.approx(100)
    assert first.columns == ["path", "price", "rooms"]
    assert first.to_json() == {"path": "w", "numbers": dict(first.numbers)}


def test_programs_give_numbers_in_units():
    head = nn.Linear(3, 2)
    features = torch.randn(5, 3)
    expected = TARGET.in_units(head(features).detach())
    whole = TARGET.finished(head)
    assert isinstance(whole, InUnits)
    np.testing.assert_allclose(whole(features).detach(), expected, rtol=1e-4)
    np.testing.assert_allclose(TARGET.finish_head(head)(features).detach(), expected, rtol=1e-4)


def test_what_was_read():
    part = SimpleNamespace(labels=TRAIN[:, :1])
    assert ONE.data_in_words("texts", {"train": part, "test": part}, is_held_out=False) == (
        "texts: 4 to train on and 4 to test on, with the number price from 100 to 300, mean 200, "
        "deviation 70.71"
    )
