"""Patches of the transformer."""

import torch


def test_patches_come_back():
    from volano.apps.video.networks.transformer import _from_patches, _to_patches

    clip = torch.arange(2 * 3 * 2 * 8 * 8.0).reshape(2, 3, 2, 8, 8)
    tokens = _to_patches(clip, 4)
    assert tokens.shape == (2, 3 * 4, 2 * 16)
    assert torch.equal(_from_patches(tokens, clip.shape, 4), clip)
    # The second token is the patch to the right.
    assert torch.equal(tokens[0, 1], clip[0, 0, :, :4, 4:].flatten())
