"""The outermost modules that train nothing, and what their calls are given."""

import torch
from torch import nn

from training.prefix.frozen_nets import Frozen
from volano.training.prefix.units import CallInputs, frozen_units, has_parameters


def test_outermost_frozen_modules():
    model = Frozen()
    assert list(frozen_units(model)) == ["trunk"]
    assert list(frozen_units(model, {"trunk"})) == ["trunk.layers"]
    assert has_parameters(model.trunk)
    # In training mode the norm takes statistics: what stands around it is looked at alone.
    model.trunk.train()
    assert list(frozen_units(model)) == ["trunk.layers.0", "trunk.layers.2"]


def test_lists_are_opened_and_a_module_counts_once():
    shared = nn.Linear(2, 2).requires_grad_(False)
    model = nn.Module()
    model.parts = nn.ModuleList([shared, shared, nn.Linear(2, 2)])
    assert list(frozen_units(model)) == ["parts.0"]


def test_settings_say_all_but_tensors():
    x = torch.rand(2)
    one, same = CallInputs((x, 1.0), {"mode": None}), CallInputs((x + 1, 1.0), {"mode": None})
    assert one.settings == same.settings
    assert one.settings != CallInputs((x, 2.0), {"mode": None}).settings
    assert one.settings != CallInputs((x, 1.0), {"other": None}).settings
    assert CallInputs((x, object()), {}).settings is None
    assert len(one.tensors) == 1
