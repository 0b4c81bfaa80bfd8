"""The beginning of fine-tuning: features by the frozen trunk, and the solved head."""

import torch

from pretrained_networks import small
from volano.apps.image.fine_tuning.begin import begin
from volano.apps.image.fine_tuning.network import network_of
from volano.apps.image.options import ImageOptions
from volano.apps.targets.find_target import target_of_data
from volano.data.sources import read_image_sets
from volano.device import Device
from volano.pretrained.frozen_features import FineTuningStart


def test_a_head_is_solved_on_the_trunks_features(tmp_path):
    network = network_of(ImageOptions(from_="pretrained_networks:small"))
    train = read_image_sets(None).train.select(range(100))
    start = begin(
        network, train, target_of_data(train, ()), Device("cpu"), seed=0, is_balanced=False
    )
    with torch.no_grad():
        features = network.trunk(train.images)
    assert torch.allclose(start.probe.center, features.mean(0), atol=1e-5)
    assert start.example_seconds > 0
    assert small().fc.weight.shape[1] == len(start.probe.scale)
    assert FineTuningStart.of_run(tmp_path) is None
