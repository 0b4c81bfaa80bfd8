"""A task whose frozen modules give what they computed before."""

import pytest
import torch
from torch import nn

from conftest import classification
from training.prefix.frozen_nets import Frozen, Many, Pieces, Trunk
from volano.device import Device
from volano.training import Session
from volano.training.prefix.find_prefix import find_prefix
from volano.training.prefix.row_digests import RowDigests
from volano.training.prefix.task_on_features import (
    FeaturePass,
    GivenFeatures,
    OnFeatures,
    on_features,
    without_units,
)
from volano.training.prefix.units import PrefixMismatchError


def passed_of(task, net):
    model = Session.make_model(task)
    batch = tuple(tensor[:32] for tensor in task.data.tensors)
    found = find_prefix(model, lambda part: classification(model, part), batch, Device("cpu"))
    passed = FeaturePass(found.boundary, 32, RowDigests(torch.device("cpu")))
    with torch.no_grad():
        passed.passed(lambda: classification(model, batch))
    return model, batch, passed


@pytest.mark.parametrize("net", [Frozen, Pieces, Many])
def test_loss_and_gradient_are_the_same_without_the_trunk(make_task, net):
    task = make_task(model=net)
    model, batch, passed = passed_of(task, net)

    def gradients(objective, batch):
        torch.manual_seed(1)
        loss = objective(model, batch)
        return [loss, *torch.autograd.grad(loss, list(model.head.parameters()))]

    expected = gradients(classification, batch)
    without_units(model, passed.plan)
    Trunk.calls = 0
    got = gradients(OnFeatures(classification, passed.plan), (batch, passed.features))
    assert Trunk.calls == 0
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_task_on_features_begins_with_the_weights_of_the_task(make_task):
    task = make_task(model=Frozen)
    model, _, passed = passed_of(task, Frozen)
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    made = on_features(task, without_units(model, passed.plan), passed.plan, task.data, task.valid)
    again = Session.make_model(made)
    assert [name for name, _ in again.named_parameters()] == ["head.1.weight", "head.1.bias"]
    torch.testing.assert_close(again.head.state_dict(), head)
    assert again is not Session.make_model(made)


def test_what_gets_another_input_shows(make_task):
    model, (pixels, labels), passed = passed_of(make_task(model=Frozen), Frozen)
    without_units(model, passed.plan)
    digests = RowDigests(torch.device("cpu"))
    for factor, is_same in ((1.0, True), (0.5, False)):
        given = GivenFeatures(passed.plan, passed.features, digests)
        with given.to(model):
            classification(model, (pixels * factor, labels))
        assert (given.inputs == passed.inputs) is is_same


def test_what_is_called_otherwise_is_told(make_task):
    model, (pixels, _), passed = passed_of(make_task(model=Frozen), Frozen)
    without_units(model, passed.plan)
    with pytest.raises(PrefixMismatchError, match="outside of the objective"):
        model(pixels)
    with (
        pytest.raises(PrefixMismatchError, match="fewer of its modules"),
        GivenFeatures(passed.plan, passed.features).to(model),
    ):
        model.head(torch.zeros(2, 48))
    given = GivenFeatures(passed.plan, passed.features)
    with given.to(model):
        model(pixels)
        with pytest.raises(PrefixMismatchError, match="at another place than before"):
            model(pixels)
        given._next = len(passed.plan.calls)


def test_what_nothing_used_is_not_a_number(make_task):
    model, (pixels, _), passed = passed_of(make_task(model=Many), Many)
    without_units(model, passed.plan)
    with GivenFeatures(passed.plan, passed.features).to(model):
        parts = model.trunk(pixels)
    assert parts["hidden"].shape == (32, 5, 48)
    assert parts["hidden"].isnan().all()
    assert not parts["pooled"].isnan().any()
    assert isinstance(model.trunk, nn.Module)
