"""Shapes and parameter groups of networks of clips."""

import pytest

from volano.apps.video.model_spec import make_network
from volano.apps.video.recipe import network_shape, parameter_groups
from volano.training import MuonAdamW


def test_each_parameter_is_in_one_group_and_matrices_of_blocks_go_to_muon(spec):
    network = make_network(spec)
    muon, rest = parameter_groups(network, matrix_lr=0.02, rest_lr=0.003)
    listed = [id(parameter) for group in (muon, rest) for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in network.parameters())
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    of_muon = {names[id(parameter)] for parameter in muon["params"]}
    wanted = {"conv1", "conv2"} if spec.network == "unet" else {"qkv", "project", "widen", "narrow"}
    assert {name.split(".")[-2] for name in of_muon} == wanted
    MuonAdamW([muon, rest])


@pytest.mark.parametrize(("size", "patch"), [(16, 2), (32, 4), (64, 8), (40, 5), (24, 3)])
def test_a_frame_is_at_most_eight_patches_wide(size, patch):
    assert network_shape("transformer", size)["patch"] == patch
