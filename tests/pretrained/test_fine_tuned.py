"""A pretrained trunk with another head: what is frozen stays as it is."""

import copy

import pytest
import torch
from torch import nn

from pretrained_networks import small
from volano.pretrained.fine_tuned import (
    FineTuned,
    ImageTrunk,
    StandardizedLinear,
    groups_by_depth,
    head_groups,
    parameters_in_words,
)
from volano.pretrained.heads import without_head
from volano.pretrained.network_references import ALL, HEAD
from volano.pretrained.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=8, mean=(127.0,) * 3, std=(64.0,) * 3)


def fine_tuned(tune):
    trunk = ImageTrunk(without_head(small(), "fc"), PREPROCESSING)
    return FineTuned(trunk, StandardizedLinear(16, 4), tune)


@pytest.mark.parametrize("tune", [HEAD, ALL])
def test_batch_norms_stay_in_evaluation_mode_and_bitwise_unchanged(tune):
    model = fine_tuned(tune)
    before = copy.deepcopy(model.trunk.state_dict())
    model.eval().train()
    optimizer = torch.optim.SGD(groups_by_depth(
        model, trunk_lr=0.1, head_lr=0.1, span=10.0, weight_decay=0.1
    ) if tune == ALL else head_groups(model, lr=0.1, weight_decay=0.1), lr=0.1)  # fmt: skip
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    for _ in range(2):
        optimizer.zero_grad()
        model(images).logsumexp(1).sum().backward()
        optimizer.step()
    norms = [m for m in model.trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    after = model.trunk.state_dict()
    statistics = [name for name in before if "running" in name or "num_batches" in name]
    assert statistics
    kept = statistics if tune == ALL else before
    assert all(torch.equal(before[name], after[name]) for name in kept)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert bool(changed) == (tune == ALL)


def test_a_frozen_trunk_is_in_evaluation_mode_whatever_is_asked():
    model = fine_tuned(HEAD)
    assert model.training
    assert not any(module.training for module in model.trunk.modules())
    assert not any(parameter.requires_grad for parameter in model.trunk.parameters())
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(model.trunk(images), model.trunk(images))  # no dropout
    assert parameters_in_words(model).startswith("trainable: 68 of ")


def test_pictures_are_fitted_to_the_network():
    trunk = fine_tuned(HEAD).trunk
    grey = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(trunk(grey), trunk(grey.expand(-1, 3, -1, -1)))
    assert trunk(torch.zeros(2, 1, 20, 20, dtype=torch.uint8)).shape == (2, 16)


def test_rates_fall_towards_the_first_layers():
    model = fine_tuned(ALL)
    groups = groups_by_depth(model, trunk_lr=1.0, head_lr=5.0, span=10.0, weight_decay=0.1)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert set(rate) == {id(p) for p in model.parameters()}
    body = model.trunk.network.body
    assert rate[id(body[0].weight)] == pytest.approx(0.1)
    assert 0.1 < rate[id(body[1].weight)] < rate[id(body[5].weight)] < 1.0
    assert rate[id(model.head.linear.weight)] == 5.0
    decays = {p.ndim > 1: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {True: 0.1, False: 0.0}


def test_a_head_that_standardises_is_one_linear_layer():
    head = StandardizedLinear(4, 3)
    with torch.no_grad():
        for tensor in (head.center, head.linear.weight, head.linear.bias):
            tensor.normal_()
        head.scale.uniform_(0.5, 2.0)
    features = torch.randn(5, 4)
    assert torch.allclose(head.folded()(features), head(features), atol=1e-5)
