"""What fine-tuning trains, and at which rates."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from volano.plan import Plan
from volano.pretrained.head_solvers import SoftmaxHead
from volano.pretrained.linear_probe import solve_probe
from volano.pretrained.network_references import ALL, HEAD
from volano.pretrained.tuning import TuningRates, trainable_in_words, tuning_fields

RATES = TuningRates(trunk=0.1, head=2.0, weight_decay=0.3)


@pytest.fixture(scope="module")
def probe():
    features = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    return solve_probe(features, torch.arange(12) % 2, SoftmaxHead(num_classes=2), seed=0)


def groups_of(tune, probe):
    network = SimpleNamespace(num_features=3, fresh_trunk=lambda: nn.Linear(4, 3))
    fields = tuning_fields(network, tune, probe, 2, RATES)
    model = fields["model"]()
    return fields, model, fields["parameter_groups"](model)


def test_the_head_alone_is_trained_for_what_it_was_solved_for(probe):
    fields, model, groups = groups_of(HEAD, probe)
    assert torch.equal(model.head.linear.weight, probe.weight)
    assert {group["lr"] for group in groups} == {2.0 * probe.learning_rate}
    assert groups[0]["weight_decay"] == 0.3
    assert "clip_norm" not in fields


def test_all_layers_are_trained_with_a_head_at_its_own_rate(probe):
    fields, model, groups = groups_of(ALL, probe)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(model.head.linear.weight)] == 2.0
    assert rates[id(model.trunk.weight)] == pytest.approx(0.01)
    assert fields["clip_norm"] == 1.0


def test_what_is_trained_is_said():
    task = SimpleNamespace(model=lambda: nn.Linear(2, 3).requires_grad_(False))
    said = trainable_in_words(task, Plan.baseline("cpu"))
    assert said == "trainable: 0 of 9 parameters"
