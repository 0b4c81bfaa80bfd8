import torch
from torch import nn

from volano.apps.video.classify.network import ClipClassifier, FrameTrunk
from volano.apps.video.pixels import PixelScale


def test_motion_is_seen():
    torch.manual_seed(0)
    network = ClipClassifier(channels=1, num_classes=3, width=8, scale=PixelScale((9.0,), (2.0,)))
    nn.init.normal_(network.head.weight)
    frames = torch.randint(0, 255, (2, 4, 1, 16, 16), dtype=torch.uint8)
    logits = network(frames)
    assert logits.shape == (2, 3)
    # The same frames in another order.
    assert (network(frames.flip(1)) - logits).abs().max() > 1e-3
    torch.testing.assert_close(network(frames[:1]), logits[:1])


def test_a_trunk_of_images_is_averaged_over_the_frames():
    trunk = FrameTrunk(nn.Sequential(nn.Flatten()))
    frames = torch.arange(2 * 3 * 4.0).view(2, 3, 1, 2, 2)
    torch.testing.assert_close(trunk(frames), frames.flatten(2).mean(1))
