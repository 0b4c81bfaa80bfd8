"""What of a model may be kept, and why the rest may not."""

import pytest
import torch
from torch import nn

from conftest import classification, make_mlp
from training.prefix.frozen_nets import (
    Counting,
    Coupled,
    Drawing,
    Frozen,
    Leaking,
    Many,
    Pieces,
    Trunk,
    Writing,
)
from volano.device import Device
from volano.training.prefix.find_prefix import find_prefix


def found(model, objective=classification, count=8):
    torch.manual_seed(0)
    batch = torch.rand(count, 64), torch.arange(count) % 10
    return find_prefix(model, lambda part: objective(model, part), batch, Device("cpu"))


def kept(facts):
    return list(facts.boundary.kept_units)


@pytest.mark.parametrize("count", [1, 2, 8, 32])
def test_a_frozen_trunk(count):
    facts = found(Frozen(), count=count)
    assert kept(facts) == ["trunk"]
    assert facts.boundary.used == (frozenset({(0, 0)}),)
    assert (facts.num_frozen, facts.num_layers) == (2, 3)
    assert facts.row_bytes == 4 * 48
    assert facts.computing > 0


def test_a_chain_of_frozen_layers_is_kept_at_its_end_alone():
    facts = found(Pieces())
    assert kept(facts) == ["trunk.layers.0", "trunk.layers.1"]
    assert facts.boundary.used == (frozenset({(1, 0)}),)
    assert facts.row_bytes == 4 * 48


def test_what_is_used_elsewhere_is_kept_too():
    facts = found(Leaking())
    assert facts.boundary.used == (frozenset({(0, 0), (2, 0)}),)
    assert facts.row_bytes == 2 * 4 * 48


def test_of_several_results_those_are_kept_that_are_used():
    facts = found(Many())
    assert kept(facts) == ["trunk"]
    assert facts.row_bytes == 4 * 48


def test_layers_behind_what_draws_are_computed():
    # Dropout in training mode, between two frozen layers.
    class Net(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(
                nn.Linear(64, 48), nn.Dropout(0.5), nn.Linear(48, 48), nn.Linear(48, 10)
            )
            for place in (0, 2):
                self[place].requires_grad_(False)

    assert kept(found(Net())) == ["0"]
    assert kept(found(Frozen(nn.Linear(48, 48), Drawing()))) == [
        f"trunk.layers.{n}" for n in range(4)
    ]


def test_a_reused_layer_without_parameters_is_no_prefix():
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(64, 10))
    assert found(net) == "no layer of the model is frozen"


class Noisy(Frozen):
    """Its input is drawn."""

    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


class Adapted(Frozen):
    """A trained layer stands before the trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Linear(64, 64)

    def forward(self, x):
        return super().forward(self.adapter(x))


class Moving(Frozen):
    """A norm that is frozen, but takes the statistics of batches."""

    def train(self, mode=True):
        super().train(mode)
        self.trunk.layers[1].train(mode)
        return self


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_mlp, "no layer of the model is frozen"),
        (lambda: Frozen(trunk=Writing()), "trunk writes a buffer or a parameter"),
        (lambda: Frozen(trunk=Counting()), "trunk keeps a count of its calls"),
        (lambda: Frozen(trunk=Coupled()), "depends on the others of a batch"),
        (Noisy, "its input is drawn again each time"),
        (Adapted, "no frozen module gets its input from the batch alone"),
    ],
)
def test_what_cannot_be_kept(make, reason):
    assert reason in found(make())


def test_a_norm_that_takes_statistics_is_computed_and_what_stands_before_it_is_kept():
    assert kept(found(Moving())) == ["trunk.layers.0"]


def test_the_layer_whose_output_is_written_to_a_buffer_is_kept():
    class Follows(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 48)
            self.register_buffer("mean", torch.zeros(48))

        def forward(self, x):
            found = self.linear(x)
            self.mean.mul_(0.9).add_(found.mean(0), alpha=0.1)
            return found - self.mean

    facts = found(Frozen(trunk=Follows()))
    assert kept(facts) == ["trunk.linear"]
    assert facts.boundary.used == (frozenset({(0, 0)}),)


def test_random_state_and_the_model_are_as_before():
    model = Frozen()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found_here = find_prefix(
        model, lambda part: classification(model, part),
        (torch.rand(4, 64, generator=torch.Generator()), torch.arange(4)), Device("cpu"),
    )  # fmt: skip
    assert not isinstance(found_here, str)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())
    assert isinstance(model.trunk, Trunk)


def test_a_number_that_is_read_is_kept():
    class Net(Frozen):
        def forward(self, x):
            features = self.trunk(x)
            return self.head(features) * (2.0 if features.sum() > 0 else 3.0)

    assert kept(found(Net())) == ["trunk"]
