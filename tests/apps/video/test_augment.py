"""Augmentation of clips."""

import torch

from volano.apps.video.augment import ClipAugmentation


class TestAugmentation:
    def batch(self):
        frames = (
            torch.arange(20, dtype=torch.uint8)[None, :, None, None, None]
            .expand(200, -1, 1, 4, 4)
            .clone()
        )
        frames[..., 0] += 100  # the left column is bright
        lengths = torch.tensor([20] * 100 + [12] * 100)
        return frames, lengths, torch.arange(200)

    def test_a_stretch_of_real_frames(self):
        generator = torch.Generator().manual_seed(0)
        frames, lengths, labels = ClipAugmentation(num_frames=8, flip=False)(
            self.batch(), generator
        )
        starts = frames[:, 0, 0, 0, 1].int()
        assert frames.shape == (200, 8, 1, 4, 4)
        assert torch.equal(frames[:, :, 0, 0, 1].int(), starts[:, None] + torch.arange(8))
        assert set(starts[:100].tolist()) == set(range(13))
        assert set(starts[100:].tolist()) == set(range(5))
        assert lengths.tolist() == [8] * 200
        assert labels.tolist() == list(range(200))

    def test_mirrored_whole_clips(self):
        generator = torch.Generator().manual_seed(0)
        frames, _, _ = ClipAugmentation(num_frames=20, flip=True)(self.batch(), generator)
        left, right = frames[..., 0] >= 100, frames[..., -1] >= 100
        assert torch.equal(left, ~right)
        assert (left.flatten(1).all(1) | right.flatten(1).all(1)).all()
        assert 60 < left.flatten(1).all(1).sum() < 140

    def test_it_draws_from_the_generator_alone(self):
        make = ClipAugmentation(num_frames=8, flip=True)
        first = make(self.batch(), torch.Generator().manual_seed(5))
        torch.rand(3)
        again = make(self.batch(), torch.Generator().manual_seed(5))
        other = make(self.batch(), torch.Generator().manual_seed(6))
        assert torch.equal(first[0], again[0])
        assert not torch.equal(first[0], other[0])

    def test_the_parts_of_ranks_are_those_of_the_whole(self):
        augment = ClipAugmentation(num_frames=8, flip=True)
        whole = augment(self.batch(), torch.Generator().manual_seed(4))
        for rank in range(4):
            own = tuple(tensor[rank::4] for tensor in self.batch())
            part = augment.of_part(own, torch.Generator().manual_seed(4), rank, 4)
            for mine, all_of_it in zip(part, whole, strict=True):
                assert torch.equal(mine, all_of_it[rank::4])
