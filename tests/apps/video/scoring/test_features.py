"""Features of clips, and the tampering that teaches them."""

import torch

from volano.apps.video.pixels import PixelScale
from volano.apps.video.scoring.features import (
    PRETEXTS,
    blurred,
    features_of,
    frozen,
    pretext_accuracy,
    shuffled,
    tamper,
    train_feature_net,
)


class TestTampering:
    clip = torch.arange(8, dtype=torch.uint8).view(1, 8, 1, 1, 1).expand(1, 8, 1, 6, 6) * 10

    def moments(self, frames):
        return (frames[0, :, 0, 3, 3] // 10).tolist()

    def test_each_kind(self):
        generator = torch.Generator().manual_seed(0)
        kinds = {
            name: self.moments(tamper(self.clip, torch.tensor([number]), generator))
            for number, name in enumerate(PRETEXTS)
        }
        assert kinds["as it is"] == list(range(8))
        assert kinds["backwards"] == list(range(7, -1, -1))
        assert sorted(kinds["shuffled"]) == list(range(8)) != kinds["shuffled"]
        assert kinds["half speed"] == [0, 0, 1, 1, 2, 2, 3, 3]

    def test_spoiled_sets(self):
        generator = torch.Generator().manual_seed(0)
        assert self.moments(frozen(self.clip)) == [0] * 8
        assert sorted(self.moments(shuffled(self.clip, generator))) == list(range(8))
        edge = torch.zeros(1, 1, 1, 6, 6, dtype=torch.uint8)
        edge[..., 3:] = 90
        assert blurred(edge)[0, 0, 0, 2].tolist() == [0, 0, 30, 60, 90, 90]


class TestFeatureNet:
    def test_it_learns_its_pretexts(self, net, sets, device):
        assert pretext_accuracy(net, sets.test.frames, device, seed=0) > 0.45  # guessing scores 0.2

    def test_it_is_a_function_of_its_arguments(self, sets, device):
        scale = PixelScale((20.0,), (50.0,))
        state = torch.get_rng_state()
        one = train_feature_net(sets.train.frames[:100], scale, device, num_steps=2, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(5)
        two = train_feature_net(sets.train.frames[:100], scale, device, num_steps=2, seed=3)
        other = train_feature_net(sets.train.frames[:100], scale, device, num_steps=2, seed=4)
        few = sets.test.frames[:4]
        assert torch.equal(features_of(one, few, device), features_of(two, few, device))
        assert not torch.equal(features_of(one, few, device), features_of(other, few, device))
