"""Where the knob applies, and evaluation with it."""

import torch

from conftest import classification
from training.prefix.frozen_nets import Frozen, Trunk
from volano.device import Device
from volano.plan import Plan
from volano.training.prefix.training_prefix import PassedWithPrefix, training_prefix, why_not_cached

CACHED = Plan(prefix="cached")


def test_what_leaves_no_room_for_it(make_task):
    task = make_task(model=Frozen)
    assert why_not_cached(task, CACHED, 1) is None
    assert "several ranks" in why_not_cached(task, CACHED, 2)
    assert "compiled" in why_not_cached(task, CACHED.pin(compile=True), 1)
    assert "backward pass" in why_not_cached(task, CACHED.pin(recompute="blocks"), 1)
    augmented = make_task(model=Frozen, augment=lambda batch, _: batch)
    assert "augment" in why_not_cached(augmented, CACHED, 1)
    notices = []
    made = training_prefix(augmented, CACHED, Device("cpu"), Frozen(), 1, notices.append)
    assert made is None
    assert notices == ["prefix=cached has no effect: `augment` makes other examples in each epoch"]


def test_evaluation_takes_up_what_it_computed():
    model = Frozen().eval()
    batch = torch.rand(12, 64), torch.arange(12) % 10
    passed = PassedWithPrefix(classification, model, Device("cpu"), 12)
    with torch.no_grad():
        expected = classification(model, batch)
        first = passed(model, batch)
        Trunk.calls = 0
        again = passed(model, batch)
        assert Trunk.calls == 0
        assert torch.equal(first, expected)
        assert torch.equal(again, expected)
        with torch.no_grad():
            model.trunk.layers[0].weight.mul_(2.0)
        changed = passed(model, batch)
    assert torch.equal(changed, classification(model, batch))
