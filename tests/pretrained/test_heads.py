"""The head of a network, found and taken off."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import nn

from pretrained_networks import small
from volano.errors import UsageError
from volano.pretrained.heads import about_network, features_in, find_head, without_head


def test_the_last_linear_layer_whose_outputs_are_the_networks_is_the_head():
    network, pixels = small(), torch.randn(2, 3, 8, 8)
    found = find_head(network, pixels, whose="small")
    assert (found.name, found.num_features, found.num_outputs) == ("fc", 16, 10)
    assert without_head(network.eval(), found.name)(pixels).shape == (2, 16)


def test_a_network_of_features_has_no_head():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    found = find_head(network, torch.randn(2, 3, 8, 8), whose="x")
    assert (found.name, found.num_features) == (None, 6)
    assert find_head(nn.Linear(4, 2), torch.randn(2, 4), whose="x").name == ""


def test_features_are_found_in_what_a_network_gives():
    assert features_in(torch.ones(2, 5, 3, 3)).shape == (2, 5)
    assert features_in(torch.ones(2, 7, 5)).shape == (2, 5)
    assert features_in({"logits": torch.ones(2, 4)}).shape == (2, 4)
    with pytest.raises(UsageError, match="must give logits or features"):
        features_in(None)


def test_a_network_that_takes_something_else_is_refused():
    with pytest.raises(UsageError, match="small must take"):
        find_head(small(), torch.randn(2, 1, 8, 8), whose="small")


class Several(NamedTuple):
    """What torchvision's GoogLeNet gives."""

    logits: torch.Tensor
    aux: None = None


def test_tuples_are_known_by_their_names_alone():
    assert features_in(Several(torch.ones(2, 4))).shape == (2, 4)
    with pytest.raises(UsageError, match="must give logits or features .*; got tuple"):
        features_in((torch.ones(2, 4),))


def test_a_head_that_knows_the_classes_is_replaced_and_said():
    network = SimpleNamespace(classes=("dog", "cat"), notices=("a",), in_words=lambda: "x: 3")
    assert about_network(network, ("bird",)) == ("x: 3", "a")
    said = about_network(network, ("bird", "cat", "dog"))[-1]
    assert "knows 2 of the 3 classes already: it is replaced" in said
