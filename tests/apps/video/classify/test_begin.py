import torch

from volano.apps.image.fine_tuning.network import network_of
from volano.apps.image.options import ImageOptions
from volano.apps.video.classify.begin import begin_clips
from volano.apps.video.classify.network import FrameNetwork
from volano.device import Device


def test_a_head_of_the_averaged_features_is_solved(application):
    images = network_of(ImageOptions(from_="pretrained_networks:small"))
    start = begin_clips(
        FrameNetwork(images=images), application.train, Device("cpu"), seed=0, is_balanced=False
    )
    assert start.probe.weight.shape == (2, images.num_features)
    assert start.probe.num_examples == len(application.train)
    assert start.example_seconds > 0
    assert torch.isfinite(start.probe.weight).all()
