"""Between bytes and what a network sees."""

import pytest
import torch

from volano.apps.video.pixels import PixelScale, doubt, linear_guess, pixel_statistics


def clips(count=64, frames=8, size=8):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (count, frames, 1, size, size), generator=generator, dtype=torch.uint8
    )
    return pixels, torch.full((count,), frames), torch.zeros(count, dtype=torch.int64)


class TestPixels:
    def test_bytes_come_back(self):
        scale = PixelScale((10.0, 20.0, 30.0), (5.0, 60.0, 7.0))
        frames = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, -1, -1)
        assert torch.equal(scale.decode(scale.encode(frames)), frames)

    def test_statistics_make_mean_zero_and_deviation_one(self):
        frames, lengths, _ = clips(count=32)
        mean, std = pixel_statistics(frames, lengths)
        encoded = PixelScale(mean, std).encode(frames)
        assert encoded.mean() == pytest.approx(0, abs=1e-3)
        assert encoded.std() == pytest.approx(1, abs=1e-3)

    def test_statistics_are_of_real_frames(self):
        frames, lengths, _ = clips(count=32)
        padded = torch.cat([frames, frames[:, -1:].expand(-1, 24, -1, -1, -1)], 1)
        assert pixel_statistics(padded, lengths) == pixel_statistics(frames, lengths)

    def test_the_guess_is_the_best_linear_one(self):
        generator = torch.Generator().manual_seed(0)
        clean = torch.randn(4, 5, 1, 100, 100, generator=generator)
        levels = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]).expand(4, -1)
        t = levels[:, :, None, None, None]
        noisy = t * clean + (1 - t) * torch.randn(clean.shape, generator=generator)
        factor = (linear_guess(noisy, levels) / noisy)[0, :, 0, 0, 0]
        # Least squares.
        best = (noisy * clean).mean((0, 2, 3, 4)) / noisy.square().mean((0, 2, 3, 4))
        # Over 40,000 pixels the coefficient's standard error is below 0.005.
        assert factor.tolist() == pytest.approx(best.tolist(), abs=0.02)
        assert factor[0] == 0
        assert factor[-1] == 1
        error = (linear_guess(noisy, levels) - clean).square().mean((0, 2, 3, 4)).sqrt()
        assert doubt(levels)[0, :, 0, 0, 0].tolist() == pytest.approx(error.tolist(), abs=0.02)
