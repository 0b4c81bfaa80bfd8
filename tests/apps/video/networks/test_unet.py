"""How the U-Net begins."""

import torch

from apps.video.specs import SPEC, inputs, woken
from volano.apps.video.model_spec import make_network


def test_the_unet_starts_as_the_linear_guess_and_is_blind_to_pure_noise():
    torch.manual_seed(0)
    network = make_network(SPEC)
    noisy, levels, labels = inputs(SPEC)
    t = levels[:, :, None, None, None]
    bias = network.out[-1].bias
    with torch.no_grad():
        bias.zero_()
        assert torch.allclose(
            network(noisy, levels, labels), noisy * t / (t**2 + (1 - t) ** 2), atol=1e-6
        )
    network = woken(SPEC)
    still = torch.zeros_like(levels)
    assert torch.equal(network(noisy, still, labels), network(-3 * noisy, still, labels))
