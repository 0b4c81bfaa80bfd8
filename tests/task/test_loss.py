import numpy as np
import pytest
import torch

from volano import Loss
from volano.errors import ObjectiveError
from volano.report.curves import _NO_METRIC
from volano.task import as_loss, check_objective_result
from volano.task.loss import TAKEN_NAMES


def test_a_scalar_is_a_mean_over_examples():
    loss = as_loss(torch.tensor(2.0), 5)
    assert (loss.total.item(), loss.weight) == (10.0, 5.0)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (1.5, "scalar tensor .* or volano.Loss; got the objective's result of type float"),
        (torch.zeros(3), r"one number per batch; got .* of shape \(3,\)"),
        (torch.tensor(1), "floating-point tensor; got .*int64"),
        (Loss(total=torch.zeros(2), weight=1), r"got Loss.total of shape \(2,\)"),
        (
            Loss(total=torch.zeros(()), weight=1, metrics={"a": torch.zeros(2)}),
            r"metrics\['a'\] of shape \(2,\)",
        ),
    ],
)
def test_another_result_is_refused(result, message):
    with pytest.raises(ObjectiveError, match=message):
        as_loss(result, 1)


def test_narrow_losses_are_summed_wide():
    assert as_loss(torch.tensor(300.0, dtype=torch.float16), 256).total.item() == 76800.0


def test_a_weight_is_one_number():
    assert as_loss(Loss(total=torch.ones(1), weight=torch.ones(1)), 1).weight.ndim == 0
    with pytest.raises(ObjectiveError, match=r"Loss.weight must be one number.*shape \(3,\)"):
        as_loss(Loss(total=torch.ones(()), weight=torch.ones(3)), 1)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"weight": "4"}, "weight of type str"),
        ({"weight": None}, "weight of type NoneType"),
        ({"metrics": {"m": None}}, r"metrics\['m'\] of type"),
        ({"metrics": {"m": np.ones(1)}}, r"metrics\['m'\] of type ndarray"),
        ({"metrics": {"m": torch.tensor(1j)}}, r"metrics\['m'\] of torch.complex64"),
        ({"metrics": None}, "must be a mapping from names to numbers; got NoneType"),
        ({"metrics": {"loss": 1.0}}, r"a name of its own.*metrics\['loss'\].*Rename it: data_wait"),
        ({"metrics": {3: 1.0}}, r"a name of its own, which is a text; got metrics\[3\]"),
    ],
)
def test_weight_and_metrics_are_numbers(more, found):
    loss = Loss(**{"total": torch.ones((), requires_grad=True), "weight": 4, **more})
    with pytest.raises(ObjectiveError, match=found):
        check_objective_result(loss)
    with pytest.raises(ObjectiveError, match=found):  # in evaluations too
        as_loss(loss, 1)


def test_numbers_of_any_kind_are_metrics():
    metrics = {"a": np.float32(1), "b": np.bool_(True), "c": 1, "d": torch.tensor([2]), "e": True}
    assert as_loss(Loss(total=torch.ones(()), weight=np.int64(4), metrics=metrics), 1).weight == 4


def test_what_is_logged_for_every_task_is_no_name_of_a_metric():
    assert TAKEN_NAMES == _NO_METRIC
